// Runs every kernel at every level this machine has, with several thread counts, on drawn data, and prints one digest
// of all results. It must be the same for all levels and on all machines: the exit status says whether it is
// digest.txt's.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include "algo/affine/even_steps.h"
#include "algo/affine/fake_quantize.h"
#include "algo/affine/quantize.h"
#include "algo/calibrate/feed_back.h"
#include "algo/common/measure.h"
#include "algo/palettize/fit_tables.h"
#include "algo/palettize/palettize.h"
#include "algo/prune/nested.h"
#include "algo/prune/prune.h"
#include "algo/prune/structure.h"
#include "algo/soft_kmeans/nearest.h"
#include "algo/soft_kmeans/soft_kmeans.h"
#include "algo/vectors/vector_entries.h"
#include "algo/vectors/vector_order.h"
#include "algo/vectors/vector_palettes.h"
#include "algo/vectors/vector_sample.h"
#include "core/half.h"
#include "dispatch.h"

namespace {

using namespace corepress;

class Digest {
public:
    template <typename T>
    void add(const std::vector<T>& values) {
        const auto* const bytes = reinterpret_cast<const unsigned char*>(values.data());
        for (size_t i = 0; i < values.size() * sizeof(T); ++i) hash_ = (hash_ ^ bytes[i]) * 0x100000001b3u;
    }
    void add(const ErrorSums& errors) {
        add(std::vector<double>{errors.squared_error, errors.squared_first, errors.squared_second, errors.product,
                                errors.largest_error});
    }
    void add(const Noise& noise) { add(std::vector<double>{noise.squared_error, noise.squared_first}); }
    std::string text() const {
        char text[17];
        std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash_));
        return text;
    }

private:
    uint64_t hash_ = 0xcbf29ce484222325u;
};

// The sum of four uniform numbers, with every 97th value far larger: bell-shaped, with tails.
template <typename Bits>
std::vector<Bits> draw(int64_t count) {
    uint64_t state = 0x9e3779b97f4a7c15u;
    const auto uniform = [&state] {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return static_cast<double>(state >> 11) * 0x1p-53 - 0.5;
    };
    std::vector<Bits> values(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
        const double value = (uniform() + uniform() + uniform() + uniform()) * (i % 97 == 0 ? 0.5 : 0.02);
        values[static_cast<size_t>(i)] = Format<Bits>::from_float(static_cast<float>(value));
    }
    return values;
}

template <typename T>
Span<T> span_of(std::vector<T>& values) {
    return {values.data(), static_cast<int64_t>(values.size())};
}

template <typename Bits>
void add_quantized(const std::vector<Bits>& values, const BlockLayout& layout, int threads, Digest& digest,
                   std::vector<Bits>& decoded) {
    for (const CodeType type : {CodeType{4, false}, CodeType{4, true}, CodeType{8, true}}) {
        for (const bool symmetric : {true, false}) {
            const auto groups = static_cast<size_t>(layout.groups());
            std::vector<Bits> scales(groups);
            std::vector<uint8_t> zero_points(groups);
            std::vector<uint8_t> codes((values.size() * static_cast<size_t>(type.nbits) + 7) / 8);
            const bool search = values.size() < 20000 && type.nbits == 4;
            Noise noise;
            quantize<Bits>(values.data(), nullptr, layout, {type, symmetric, search}, threads, scales.data(),
                           zero_points.data(), codes.data(), &noise);
            dequantize(codes.data(), layout, type, scales.data(), zero_points.data(), threads, decoded.data());
            digest.add(scales);
            digest.add(zero_points);
            digest.add(codes);
            digest.add(noise);
            digest.add(decoded);
            digest.add(sum_quantized_errors(values.data(), codes.data(), layout, type, scales.data(),
                                            zero_points.data(), threads));
        }
    }
}

// Codes of all other types, with scales of either kind.
template <typename Bits>
void add_small_codes(const std::vector<Bits>& values, const BlockLayout& layout, int threads, Digest& digest,
                     std::vector<Bits>& decoded) {
    for (const CodeType type : {CodeType{2, true}, CodeType{2, false}, type_of(kFloat8E4M3FN), type_of(kFloat8E5M2),
                                type_of(kFloat4E2M1FN)}) {
        for (const bool binary : {false, true}) {
            const auto groups = static_cast<size_t>(layout.groups());
            std::vector<Bits> scales(groups);
            std::vector<uint8_t> zero_points(groups), exponents(groups);
            std::vector<uint8_t> codes((values.size() * static_cast<size_t>(type.nbits) + 7) / 8);
            const AffineEncoding encoding{type, true, values.size() < 20000, binary};
            const uint8_t* const powers = binary ? exponents.data() : nullptr;
            Noise noise;
            quantize<Bits>(values.data(), nullptr, layout, encoding, threads, scales.data(), zero_points.data(),
                           codes.data(), &noise, exponents.data());
            dequantize(codes.data(), layout, type, scales.data(), zero_points.data(), threads, decoded.data(), powers);
            digest.add(scales);
            digest.add(exponents);
            digest.add(codes);
            digest.add(noise);
            digest.add(decoded);
            digest.add(sum_quantized_errors(values.data(), codes.data(), layout, type, scales.data(),
                                            zero_points.data(), threads, powers));
        }
    }
}

template <typename Bits>
void add_vectors(const VectorLayout& layout, int nbits, bool weighted, int threads, Digest& digest) {
    const auto count = static_cast<size_t>(layout.count());
    const std::vector<Bits> values = draw<Bits>(layout.count() * layout.length);
    std::vector<uint32_t> importance(values.size());
    for (size_t i = 0; i < importance.size(); ++i) {
        importance[i] = Format<uint32_t>::from_float(static_cast<float>(i % 13 + 1) / 16);
    }
    const VectorSource<Bits> source{values.data(), layout, weighted ? importance.data() : nullptr, 2, nullptr};
    std::vector<Bits> luts(static_cast<size_t>((layout.groups.groups << nbits) * layout.length)),
        decoded(values.size());
    std::vector<uint8_t> packed((count * static_cast<size_t>(nbits) + 7) / 8);
    fit_vector_tables(source, 1 << nbits, threads, luts.data());
    palettize_vectors(source, nbits, luts.data(), threads, packed.data());
    const GroupLayout& groups = layout.groups;
    const VectorBlocks blocks{BlockLayout({{1, groups.outer}, {groups.groups, groups.run}}), layout.inner,
                              layout.length};
    depalettize_vectors(packed.data(), blocks, nbits, luts.data(), threads, decoded.data());
    const ErrorSums errors = sum_vector_errors(values.data(), packed.data(), blocks, nbits, luts.data(), threads);
    digest.add(luts);
    digest.add(packed);
    digest.add(decoded);
    digest.add(std::vector<double>{errors.squared_error, errors.largest_error});
}

// The search that passes over entries too far away, and the one by ranks, find what the search through all does: ties,
// offsets, values whose squares vanish or overflow, vectors in any order.
void check_close_vectors(int64_t length, int64_t entries, int64_t count, float step, float offset, float outlier) {
    const auto value_of = [&](uint64_t seed) {
        const double place = uniform_of(seed) + uniform_of(seed + 1) - 1;
        const auto rounded = static_cast<float>(static_cast<int64_t>(place * 40));
        return offset + step * (seed % 97 == 0 ? rounded * outlier : rounded);
    };
    std::vector<float> table(static_cast<size_t>(entries * length));
    for (size_t i = 0; i < table.size(); ++i) table[i] = value_of(2 * i + 1);
    VectorTile far, near;
    far.make_room(length);
    near.make_room(length);
    for (int64_t c = 0; c < length; ++c) {
        for (int64_t i = 0; i < count; ++i) {
            far.planes[static_cast<size_t>(c * kVectorTile + i)] = value_of(static_cast<uint64_t>(5 * (c * count + i)));
        }
    }
    VectorEntries search;
    search.set(table.data(), entries, length);
    VectorOrder order;
    for (const bool sorted : {false, true}) {
        if (sorted && length > VectorOrder::kLongest) break;
        if (sorted) order.sort(far.planes.data(), kVectorTile, count, length);
        VectorPlanes planes{far.planes.data(), nullptr, nullptr, kVectorTile};
        search.assign(planes, count, far);
        VectorBoxes boxes;
        boxes.find(planes.planes, kVectorTile, count, length, 1);
        planes.boxes = boxes.at(0);
        search.assign(planes, count, near);
        const auto end = static_cast<std::ptrdiff_t>(count);
        if (!std::equal(far.codes.begin(), far.codes.begin() + end, near.codes.begin()) ||
            !std::equal(far.distances.begin(), far.distances.begin() + end, near.distances.begin())) {
            throw std::logic_error("the entries nearest to close vectors are others");
        }
        kernels().nearest_codes(planes.planes, nullptr, kVectorTile, length, count, table.data(), entries,
                                near.codes.data(), near.distances.data());
        if (!std::equal(far.codes.begin(), far.codes.begin() + end, near.codes.begin())) {
            throw std::logic_error("the codes of the least ranks are not those of the nearest entries");
        }
    }
}

void check_all_close_vectors() {
    for (const int64_t length : {1, 2, 3, 4, 8}) {
        for (const int64_t entries : {64, 65, 80, 256, 300}) {
            for (const int64_t count : {1, 33, 64, 97, 1024}) {
                for (const float step : {1.0f, 0.37f, 0x1p-70f, 0x1p-140f, 0x1p30f, 0x1p64f}) {
                    for (const float offset : {0.0f, 1000.3f}) {
                        for (const float outlier : {1.0f, 300.0f}) {
                            check_close_vectors(length, entries, count, step, offset * step, outlier);
                        }
                    }
                }
            }
        }
    }
}

// Groups, runs and lengths of every kind; some have more vectors than are sampled.
template <typename Bits>
void add_all_vectors(int threads, Digest& digest) {
    struct Case {
        VectorLayout layout;
        int nbits;
        bool weighted;
    };
    for (const Case& each : {Case{{{1, 1, 1}, 1, 2}, 1, false}, Case{{{1, 3, 70}, 7, 2}, 3, false},
                             Case{{{5, 2, 33}, 1, 4}, 4, true}, Case{{{1, 1, 2047}, 2047, 3}, 6, false},
                             Case{{{2, 1, 900}, 9, 5}, 4, true}, Case{{{1, 1, 999}, 1, 8}, 8, false},
                             Case{{{1, 1, 70001}, 70001, 2}, 4, false}, Case{{{3, 1, 24000}, 1, 4}, 2, true},
                             Case{{{1, 2, 3000}, 1, 4}, 6, false}, Case{{{1, 1, 140001}, 140001, 2}, 6, false}}) {
        add_vectors<Bits>(each.layout, each.nbits, each.weighted, threads, digest);
    }
}

// The values that pruning writes as it makes a mask are those that the mask keeps.
template <typename Bits>
void check_survivors(const Pruned& pruned, const std::vector<Bits>& survivors, const std::vector<Bits>& kept) {
    if (!pruned.is_finite || pruned.ones != static_cast<int64_t>(kept.size()) ||
        !std::equal(kept.begin(), kept.end(), survivors.begin())) {
        throw std::logic_error("other values are kept than the mask says");
    }
}

template <typename Bits>
void add_results(const GroupLayout& layout, int threads, Digest& digest) {
    const int64_t count = layout.size();
    const size_t size = static_cast<size_t>(count), groups = static_cast<size_t>(layout.groups);
    const std::vector<Bits> values = draw<Bits>(count);
    std::vector<Bits> decoded(size), small(values);  // the digits alone, which make subnormal numbers
    for (Bits& value : small) value = static_cast<Bits>(value & ~Format<Bits>::kInfinity);
    for (const int nbits : {1, 2, 3, 4, 6, 8}) {
        std::vector<Bits> luts(groups << nbits);
        std::vector<uint8_t> packed((size * static_cast<size_t>(nbits) + 7) / 8);
        const Fit fit =
            fit_tables<Bits>(values.data(), nullptr, layout, {TableMode::kKmeans, 1 << nbits}, threads, luts.data());
        if (fit.noise) digest.add(*fit.noise);
        palettize(values.data(), layout, nbits, luts.data(), threads, packed.data());
        const BlockLayout blocks({{1, layout.outer}, {layout.groups, layout.run}});
        look_up<Bits>(packed.data(), blocks, nbits, luts.data(), nullptr, threads, span_of(decoded));
        digest.add(luts);
        digest.add(packed);
        digest.add(decoded);
        for (const std::vector<Bits>& each : {values, small}) {
            fit_tables<Bits>(each.data(), nullptr, layout, {TableMode::kUniform, 1 << nbits}, threads, luts.data());
            digest.add(luts);
        }
    }
    std::vector<float> importance(size);
    for (size_t i = 0; i < size; ++i)
        importance[i] = Format<Bits>::to_float(values[size - 1 - i] & Format<Bits>::kMagnitude);
    std::vector<Bits> weighted(groups << 3), scales(groups);
    std::vector<uint8_t> codes(size), zero_points(groups);
    fit_tables<Bits>(values.data(), importance.data(), layout, {TableMode::kKmeans, 8}, threads, weighted.data());
    digest.add(weighted);
    if (count < 20000) {
        quantize<Bits>(values.data(), importance.data(), BlockLayout({{1, layout.outer}, {layout.groups, layout.run}}),
                       {{8, true}, false, true}, threads, scales.data(), zero_points.data(), codes.data());
        digest.add(scales);
        digest.add(codes);
    }
    add_quantized(values, BlockLayout({{1, layout.outer}, {layout.groups, layout.run}}), threads, digest, decoded);
    digest.add(sum_errors(values.data(), decoded.data(), count, threads));
    Noise noise;
    const Magnitude<Bits> threshold = magnitude_of_rank(values.data(), count, count / 2, threads, &noise);
    digest.add(noise);
    std::vector<uint8_t> mask((size + 7) / 8);
    std::vector<Bits> kept(static_cast<size_t>(threshold.above)), survivors(size);
    const Pruned pruned =
        prune_by_magnitude(values.data(), count, threshold.bits, threads, mask.data(), span_of(survivors));
    encode_sparse(values.data(), count, mask.data(), threads, span_of(kept));
    check_survivors(pruned, survivors, kept);
    const Span<const Bits> kept_values(kept.data(), threshold.above);
    decode_sparse(kept_values, mask.data(), count, threads, decoded.data());
    digest.add(sum_sparse_errors(values.data(), kept_values, mask.data(), count, threads));
    digest.add(mask);
    digest.add(kept);
    digest.add(decoded);
    std::vector<uint8_t> keep(size);
    for (const int64_t m : {2, 4, 7, 16, 40}) {
        n_m_keep(values.data(), layout, m / 2, m, threads, keep.data());
        digest.add(keep);
        for (const bool blocks : {false, true}) {
            const int64_t length = std::min(m, layout.groups);
            const Pruned of_axis =
                blocks
                    ? prune_blocks(values.data(), layout, length, count / 2, threads, mask.data(), span_of(survivors))
                    : prune_n_m(values.data(), layout, m / 2, m, threads, mask.data(), span_of(survivors));
            digest.add(mask);
            std::vector<Bits> expected(static_cast<size_t>(kernels().count_bits(mask.data(), count)));
            encode_sparse(values.data(), count, mask.data(), threads, span_of(expected));
            check_survivors(of_axis, survivors, expected);
        }
    }
}

void add_packed(int64_t count, Digest& digest) {
    std::vector<uint8_t> codes(static_cast<size_t>(count));
    for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 37 >> 2);
    for (int nbits = 1; nbits <= 8; ++nbits) {
        std::vector<uint8_t> packed((codes.size() * static_cast<size_t>(nbits) + 7) / 8), unpacked(codes.size());
        kernels().pack(codes.data(), count, nbits, packed.data());
        digest.add(packed);
        kernels().unpack_big(packed.data(), count, nbits, unpacked.data());
        digest.add(unpacked);
        kernels().pack_big(unpacked.data(), count, nbits, packed.data());
        kernels().unpack(packed.data(), count, nbits, unpacked.data());
        kernels().extend_signs(unpacked.data(), count, nbits);
        digest.add(unpacked);
        digest.add(std::vector<uint8_t>{kernels().merge_codes(codes.data(), count, 8)});
    }
}

void add_even_steps(const GroupLayout& layout, int threads, Digest& digest) {
    const std::vector<uint32_t> values = draw<uint32_t>(layout.size());
    std::vector<uint32_t> tiny(values), decoded(values.size());
    for (uint32_t& value : tiny) value &= ~Format<uint32_t>::kInfinity;
    std::vector<EvenStep> steps(static_cast<size_t>(layout.groups));
    std::vector<uint8_t> codes(values.size());
    for (const std::vector<uint32_t>& each : {values, tiny}) {
        for (const StepEncoding encoding :
             {StepEncoding{1, false}, StepEncoding{2, true}, StepEncoding{5, false}, StepEncoding{8, true}}) {
            if (!encode_even_steps(each.data(), layout, encoding, threads, steps.data(), codes.data())) {
                throw std::logic_error("finite values have no even steps");
            }
            digest.add(steps);
            digest.add(codes);
            for (const bool is_signed : {false, true}) {
                decode_even_steps(codes.data(), layout, is_signed, steps.data(), threads, decoded.data());
                digest.add(decoded);
                digest.add(sum_even_step_errors(each.data(), codes.data(), layout, is_signed, steps.data(), threads));
            }
        }
    }
}

// Codes of any grid of blocks, all of them and those that a mask keeps.
template <typename Bits>
void add_nested(const BlockLayout& layout, int threads, Digest& digest) {
    const int64_t count = layout.size();
    const auto size = static_cast<size_t>(count), groups = static_cast<size_t>(layout.groups());
    const std::vector<Bits> values = draw<Bits>(count);
    std::vector<uint8_t> mask((size + 7) / 8);
    const Magnitude<Bits> threshold = magnitude_of_rank(values.data(), count, count / 3, threads);
    const auto kept = static_cast<size_t>(threshold.above);
    std::vector<Bits> first(kept);
    prune_by_magnitude(values.data(), count, threshold.bits, threads, mask.data(), span_of(first));
    for (const int nbits : {1, 3, 4, 8}) {
        std::vector<uint8_t> packed((size * static_cast<size_t>(nbits) + 7) / 8);
        for (size_t i = 0; i < packed.size(); ++i) packed[i] = static_cast<uint8_t>(i * 2654435761u >> 13);
        std::vector<uint8_t> gathered((kept * static_cast<size_t>(nbits) + 7) / 8);
        gather_codes(packed.data(), count, nbits, mask.data(), threshold.above, threads, gathered.data());
        digest.add(gathered);
        const std::vector<Bits> luts = draw<Bits>(layout.groups() << nbits);
        std::vector<Bits> decoded(size), survivors(kept);
        look_up<Bits>(packed.data(), layout, nbits, luts.data(), nullptr, threads, span_of(decoded));
        look_up<Bits>(gathered.data(), layout, nbits, luts.data(), mask.data(), threads, span_of(survivors));
        digest.add(decoded);
        digest.add(survivors);
        if (nbits < 4) continue;
        const std::vector<uint8_t> zero_points(groups, 3);
        dequantize_kept<Bits>(gathered.data(), layout, {nbits, true}, luts.data(), zero_points.data(), mask.data(),
                              threads, span_of(survivors));
        digest.add(survivors);
    }
}

template <typename Bits>
void add_normalized(const GroupLayout& layout, int threads, Digest& digest) {
    const std::vector<Bits> values = draw<Bits>(layout.size());
    std::vector<Bits> scales(static_cast<size_t>(layout.groups)), quotients(values.size());
    normalize(values.data(), layout, threads, scales.data(), quotients.data());
    digest.add(scales);
    digest.add(quotients);
}

// Second moments of inputs that depend on their neighbours.
std::vector<float> draw_moments(int64_t blocks, int64_t size) {
    const int64_t samples = size + 9;
    std::vector<float> moments;
    for (int64_t block = 0; block < blocks; ++block) {
        const std::vector<uint32_t> inputs = draw<uint32_t>((size + 1) * samples);
        const auto input = [&](int64_t column, int64_t sample) {
            const auto number = [&](int64_t of) {
                return static_cast<double>(float_from_bits(inputs[static_cast<size_t>(of * samples + sample)]));
            };
            return number(column) + number(column + 1);
        };
        for (int64_t i = 0; i < size; ++i) {
            for (int64_t j = 0; j < size; ++j) {
                double sum = 0;
                for (int64_t sample = 0; sample < samples; ++sample) sum += input(i, sample) * input(j, sample);
                moments.push_back(static_cast<float>(sum));
            }
        }
    }
    return moments;
}

template <typename Bits>
void add_feedback(const MatrixShape& shape, int64_t size, int threads, Digest& digest) {
    const std::vector<Bits> weight = draw<Bits>(shape.groups * shape.rows * shape.columns);
    const int64_t blocks = (shape.columns + size - 1) / size;
    const std::vector<float> numbers = draw_moments(blocks, size);
    const SecondMoments moments{numbers.data(), false, 1, blocks, size};
    std::vector<int32_t> rows(static_cast<size_t>(shape.groups * shape.rows)), columns;
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i / 8 % 2);
    for (int64_t i = 0; i < shape.groups * shape.columns; ++i) columns.push_back(static_cast<int32_t>(i / 5 % 2));
    std::vector<double> entries, scales, zero_points(3, 0.0);
    std::vector<uint8_t> codes(weight.size());
    for (const int64_t count : {4, 16, 64}) {
        for (const int64_t length : {1, 2}) {
            entries.clear();
            for (int64_t i = 0; i < 3 * count * length; ++i) {
                entries.push_back((static_cast<double>(i / length % count) / static_cast<double>(count) - 0.5) * 0.125);
            }
            Rounding rounding;
            rounding.kind = RoundingKind::kPalette;
            rounding.row_tables = rows.data();
            rounding.column_tables = length == 1 && count != 4 ? columns.data() : nullptr;
            rounding.tables = 3;
            rounding.entries = entries.data();
            rounding.entry_count = count;
            rounding.length = length;
            digest.add(
                std::vector<double>{feed_back<Bits>(weight.data(), shape, moments, rounding, {0.01, 1, false, false},
                                                    threads, {codes.data(), nullptr, nullptr})});
            digest.add(codes);
            if (count > 4 || length > 1) continue;
            std::vector<double> products(static_cast<size_t>(3 * count * count)),
                targets(static_cast<size_t>(3 * count));
            sum_normal_equations<Bits>(weight.data(), shape, moments, rounding, codes.data(), 0.01, threads,
                                       products.data(), targets.data());
            digest.add(products);
            digest.add(targets);
        }
    }
    for (int i = 1; i <= 3; ++i) scales.push_back(0.01 * i);
    Rounding grid;
    grid.kind = RoundingKind::kAffine;
    grid.row_tables = rows.data();
    grid.column_tables = columns.data();
    grid.tables = 3;
    grid.scales = scales.data();
    grid.zero_points = zero_points.data();
    grid.lowest = -8;
    grid.highest = 7;
    digest.add(std::vector<double>{feed_back<Bits>(weight.data(), shape, moments, grid, {0.1, 1, false, false}, threads,
                                                   {codes.data(), nullptr, nullptr})});
    digest.add(codes);
    std::vector<uint8_t> mask(weight.size());
    std::vector<Bits> values(weight.size());
    for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % 3 != 0;
    feed_back<Bits>(weight.data(), shape, moments, Rounding{}, {0.01, 1, false, true}, threads,
                    {nullptr, values.data(), mask.data()});
    digest.add(mask);
    digest.add(values);
}

template <typename Bits>
void add_soft_kmeans(int64_t count, int64_t length, int threads, Digest& digest) {
    const std::vector<Bits> values = draw<Bits>(count * length);
    std::vector<Bits> gradient(values.rbegin(), values.rend()), results(values.size());
    for (const int64_t entries : {1, 2, 5, 16, 256}) {
        for (const bool exact : {false, true}) {
            if (exact && (entries > 16 || count > 50000)) continue;
            const SoftOptions options{1e-4, 1e-7, 1e-7, entries == 5 ? 1e9 : 1e-4, 3, entries == 2, exact};
            std::vector<double> centroids(static_cast<size_t>((options.rounds + 1) * entries * length)),
                sums(static_cast<size_t>(options.rounds * entries));
            for (int64_t i = 0; i < entries * length; ++i) {
                centroids[static_cast<size_t>(i)] =
                    (static_cast<double>(i * 7 % (entries * length)) / static_cast<double>(entries * length) - 0.5) *
                    0.125;
            }
            const SoftGroup<Bits> group{values.data(), count, length, entries};
            const SoftTape tape{centroids.data(), sums.data()};
            const int64_t rounds = soft_forward(group, options, tape, threads, results.data());
            digest.add(results);
            digest.add(centroids);
            digest.add(sums);
            soft_backward(group, gradient.data(), options, rounds, tape, threads, results.data());
            digest.add(results);
            if (exact) continue;
            std::vector<uint16_t> codes(static_cast<size_t>(count));
            assign_nearest(group, centroids.data(), entries == 5 ? 1e-3 : 0, threads, codes.data(), results.data());
            digest.add(codes);
            digest.add(results);
        }
    }
}

void add_fake_quantized(const GroupLayout& layout, int threads, Digest& digest) {
    const auto size = static_cast<size_t>(layout.size());
    const std::vector<uint32_t> bits = draw<uint32_t>(layout.size());
    std::vector<float> values(size), results(size);
    std::memcpy(values.data(), bits.data(), size * sizeof(float));
    const std::vector<float> gradient(values.rbegin(), values.rend());
    std::vector<FakeStep> steps;
    for (int64_t i = 0; i < layout.groups; ++i) {
        const float zero_point = static_cast<float>(i % 5);
        steps.emplace_back(0.002f + 0.0001f * static_cast<float>(i % 9), -8 - zero_point, 7 - zero_point);
    }
    std::vector<FakeSlopes> sums(steps.size());
    fake_quantize_groups(values.data(), layout, steps.data(), threads, results.data());
    digest.add(results);
    for (FakeSlopes* const found : {sums.data(), static_cast<FakeSlopes*>(nullptr)}) {
        fake_quantize_gradient(values.data(), gradient.data(), layout, steps.data(), threads, results.data(), found);
        digest.add(results);
    }
    digest.add(sums);
}

std::string digest_of(const std::string& level, int threads) {
    set_simd_level(level);
    Digest digest;
    for (const int64_t count : {1, 7, 8, 9, 63, 64, 65, 1001}) add_packed(count, digest);
    for (const GroupLayout layout :
         {GroupLayout{1, 1, 1}, GroupLayout{1, 1, 1023}, GroupLayout{1, 5, 321}, GroupLayout{64, 24, 1},
          GroupLayout{9, 3, 7}, GroupLayout{1, 1, 200001}, GroupLayout{2, 3, 30011}}) {
        add_results<uint16_t>(layout, threads, digest);
        add_results<BFloat16Bits>(layout, threads, digest);
        add_results<uint32_t>(layout, threads, digest);
        add_normalized<uint16_t>(layout, threads, digest);
        add_normalized<BFloat16Bits>(layout, threads, digest);
        add_normalized<uint32_t>(layout, threads, digest);
        add_even_steps(layout, threads, digest);
        add_fake_quantized(layout, threads, digest);
    }
    for (const BlockLayout& layout :
         {BlockLayout({{3001, 32}}), BlockLayout({{4, 32}, {515, 1}}), BlockLayout({{5, 7}, {3, 9}, {11, 2}}),
          BlockLayout({{1, 3}, {40, 31}, {97, 1}}), BlockLayout({{2, 33}, {9000, 1}})}) {
        std::vector<uint16_t> halves(static_cast<size_t>(layout.size()));
        std::vector<uint32_t> floats(halves.size());
        add_quantized(draw<uint16_t>(layout.size()), layout, threads, digest, halves);
        std::vector<BFloat16Bits> bfloat16s(halves.size());
        add_quantized(draw<BFloat16Bits>(layout.size()), layout, threads, digest, bfloat16s);
        add_quantized(draw<uint32_t>(layout.size()), layout, threads, digest, floats);
        add_small_codes(draw<uint16_t>(layout.size()), layout, threads, digest, halves);
        add_small_codes(draw<BFloat16Bits>(layout.size()), layout, threads, digest, bfloat16s);
        add_small_codes(draw<uint32_t>(layout.size()), layout, threads, digest, floats);
        add_nested<uint16_t>(layout, threads, digest);
        add_nested<BFloat16Bits>(layout, threads, digest);
        add_nested<uint32_t>(layout, threads, digest);
    }
    for (const MatrixShape& shape : {MatrixShape{1, 2, 1}, MatrixShape{1, 70, 301}, MatrixShape{3, 34, 37}}) {
        for (const int64_t size : {int64_t{40}, int64_t{301}}) {
            add_feedback<uint16_t>(shape, size, threads, digest);
            add_feedback<BFloat16Bits>(shape, size, threads, digest);
            add_feedback<uint32_t>(shape, size, threads, digest);
        }
    }
    for (const int64_t count : {1, 33, 5000, 70001}) {
        add_soft_kmeans<uint16_t>(count, 1, threads, digest);
        add_soft_kmeans<BFloat16Bits>(count, 1, threads, digest);
        add_soft_kmeans<uint32_t>(count, 1, threads, digest);
        if (count < 50000) add_soft_kmeans<uint32_t>(count, 3, threads, digest);
    }
    if (threads == 1) check_all_close_vectors();
    add_all_vectors<uint16_t>(threads, digest);
    add_all_vectors<uint32_t>(threads, digest);
    return digest.text();
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: %s digest.txt [numbers of threads: 1 2 5]\n", argv[0]);
        return 2;
    }
    std::vector<int> numbers{1, 2, 5};
    if (argc > 2) numbers.clear();
    for (int i = 2; i < argc; ++i) numbers.push_back(std::atoi(argv[i]));
    std::string expected;
    std::ifstream(argv[1]) >> expected;
    bool equal = true;
    for (const std::string& level : simd_levels()) {
        for (const int threads : numbers) {
            const std::string digest = digest_of(level, threads);
            std::printf("%s, %d threads: %s\n", level.c_str(), threads, digest.c_str());
            equal = equal && digest == expected;
        }
    }
    std::printf("%s\n", equal ? "as expected" : "NOT as expected");
    return equal ? 0 : 1;
}
