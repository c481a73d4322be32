// Calls every algorithm while another thread keeps rewriting its inputs, with patterns that contradict each other: what
// a first pass found never holds for the second. Any result is right, and so is an exception; an access outside of the
// arrays is not, which pages without access around them and sanitizers find, nor is a call without an end.
//
//   changing_arrays                 what can be provoked without chance, then each call a few times
//   changing_arrays --seconds 600   calls until the time is over
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "algo/affine/even_steps.h"
#include "algo/affine/quantize.h"
#include "algo/common/measure.h"
#include "algo/common/pack_bits.h"
#include "algo/palettize/distribution.h"
#include "algo/palettize/fit_tables.h"
#include "algo/palettize/float_buckets.h"
#include "algo/palettize/kmeans1d_rows.h"
#include "algo/palettize/palettize.h"
#include "algo/prune/nested.h"
#include "algo/prune/prune.h"
#include "algo/prune/slots.h"
#include "algo/prune/structure.h"
#include "algo/vectors/vector_palettes.h"
#include "algo/vectors/vector_sample.h"
#include "core/formats.h"
#include "core/half.h"
#include "dispatch.h"
#include "guarded_array.h"

namespace {

using namespace corepress;

void expect(bool holds, const char* what) {
    if (!holds) throw std::logic_error(what);
}

template <typename Bits>
Bits bits_of(double value) {
    return Format<Bits>::from_float(static_cast<float>(value));
}

// What floats change between: one value, another that differs in all bits, many, in order and not, none that is finite.
template <typename T, typename FromDouble>
std::vector<std::vector<T>> number_patterns(int64_t count, const FromDouble& number) {
    const double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
    std::vector<std::vector<T>> patterns;
    const auto add = [&](const auto& value_at) {
        std::vector<T> pattern;
        for (int64_t i = 0; i < count; ++i) pattern.push_back(number(value_at(i)));
        patterns.push_back(std::move(pattern));
    };
    const auto share = [count](int64_t i) { return static_cast<double>(i) / static_cast<double>(count) - 0.5; };
    add([](int64_t) { return 1.0; });
    add([](int64_t) { return -2.75; });
    add([](int64_t) { return 0.0; });
    add(share);
    add([&](int64_t i) { return -share(i); });
    add([](int64_t i) { return std::tan(3 * uniform_of(static_cast<uint64_t>(i)) - 1.5); });
    add([](int64_t i) { return std::exp2(60 * uniform_of(static_cast<uint64_t>(i)) - 50); });
    add([=](int64_t) { return -nan; });
    add([=](int64_t i) { return i % 3 == 0 ? infinity : i % 3 == 1 ? -infinity : 3e38; });
    return patterns;
}

std::vector<std::vector<uint8_t>> byte_patterns(int64_t count) {
    std::vector<std::vector<uint8_t>> patterns;
    const auto size = static_cast<size_t>(count);
    for (const int byte : {0, 0xff, 0x55}) patterns.emplace_back(size, static_cast<uint8_t>(byte));
    patterns.emplace_back(size);
    for (size_t i = 0; i < size; ++i) patterns.back()[i] = static_cast<uint8_t>(hash_of(i));
    return patterns;
}

// Rewrites arrays until it is destroyed: now all of one, now a part.
class Changer {
public:
    template <typename T>
    void add(const Guarded<T>& array, const std::vector<std::vector<T>>& patterns) {
        Target target{reinterpret_cast<char*>(array.data()), array.size(), sizeof(T), {}};
        for (const auto& pattern : patterns) target.patterns.push_back(reinterpret_cast<const char*>(pattern.data()));
        targets_.push_back(target);
    }
    void start(uint64_t seed) {
        thread_ = std::thread([this, seed] {
            for (uint64_t turn = seed << 32; !stop_.load(std::memory_order_relaxed); ++turn) {
                for (const Target& target : targets_) rewrite(target, hash_of(turn));
            }
        });
    }
    ~Changer() {
        stop_ = true;
        if (thread_.joinable()) thread_.join();
    }

private:
    struct Target {
        char* data;
        int64_t count;
        size_t width;
        std::vector<const char*> patterns;
    };

    // Nobody may write to what another thread reads, in the language of the standard: this is what is tried.
    static void rewrite(const Target& target, uint64_t random) {
        const auto count = static_cast<size_t>(target.count);
        const char* const pattern = target.patterns[random % target.patterns.size()];
        const bool whole = (random >> 8) % 4 != 0;
        const size_t begin = whole ? 0 : (random >> 16) % count, length = whole ? count : (random >> 32) % count;
        const size_t end = std::min(count, begin + length);
        std::memcpy(target.data + begin * target.width, pattern + begin * target.width, (end - begin) * target.width);
    }

    std::vector<Target> targets_;
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

// Ends the program when one call takes far longer than any does.
class Watch {
public:
    explicit Watch(int64_t seconds) : seconds_(seconds), thread_([this] { run(); }) {}
    ~Watch() {
        stop_ = true;
        thread_.join();
    }
    void begin(const std::string& name) {
        name_ = name;
        ++turn_;
    }

private:
    void run() {
        uint64_t seen = 0;
        for (int64_t waited = 0; !stop_; std::this_thread::sleep_for(std::chrono::milliseconds(100))) {
            waited = turn_ == seen ? waited + 1 : 0;
            seen = turn_;
            if (waited < 10 * seconds_) continue;
            std::fprintf(stderr, "%s has no end\n", name_.c_str());
            std::abort();
        }
    }

    int64_t seconds_;
    std::string name_;
    std::atomic<uint64_t> turn_{1};
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

struct Call {
    std::string name;
    std::function<void(int threads)> run;
};

int64_t ones_of(const Guarded<uint8_t>& mask, int64_t count) { return kernels().count_bits(mask.data(), count); }

// What a tensor is read by, and the calls that read it.
template <typename Bits>
class Tensor {
public:
    Tensor(const GroupLayout& layout, const char* format)
        : layout_(layout),
          count_(layout.size()),
          format_(format),
          values_(count_),
          second_(count_),
          luts_(std::max<int64_t>(256 * layout.groups, 2048)),
          importance_(count_),
          mask_(packed_size(count_, 1)),
          codes_(count_),
          zero_points_(count_),
          number_patterns_(number_patterns<Bits>(std::max(count_, luts_.size()), bits_of<Bits>)),
          importance_patterns_(number_patterns<float>(count_, [](double x) { return static_cast<float>(x); })),
          byte_patterns_(byte_patterns(count_)) {
        for (const Guarded<Bits>* array : {&values_, &second_, &luts_}) changer_.add(*array, number_patterns_);
        changer_.add(importance_, importance_patterns_);
        for (const Guarded<uint8_t>* array : {&mask_, &codes_, &zero_points_}) changer_.add(*array, byte_patterns_);
    }

    void start(uint64_t seed) { changer_.start(seed); }

    void add_calls(std::vector<Call>& calls) {
        add_pruning(calls);
        add_sparse(calls);
        add_scalar_palettes(calls);
        add_quantized(calls);
        add_vectors(calls);
        add_parts(calls);
    }

private:
    void add(std::vector<Call>& calls, const std::string& name, std::function<void(int)> run) const {
        const std::string shape =
            std::to_string(layout_.outer) + "x" + std::to_string(layout_.groups) + "x" + std::to_string(layout_.run);
        calls.push_back({name + " of " + format_ + " " + shape, std::move(run)});
    }

    void check(const Pruned& pruned) const { expect(pruned.ones >= 0 && pruned.ones <= count_, "ones are no count"); }

    void add_pruning(std::vector<Call>& calls) {
        for (const bool measured : {false, true}) {
            add(calls, "prune_by_magnitude", [this, measured](int threads) {
                Noise noise;
                const Magnitude<Bits> found =
                    magnitude_of_rank(values_.data(), count_, count_ / 2, threads, measured ? &noise : nullptr);
                expect(found.above >= 0 && found.above <= count_, "more magnitudes are above than there are");
                const Guarded<Bits> kept(found.above);
                const Guarded<uint8_t> mask(mask_.size());
                check(prune_by_magnitude(values_.data(), count_, found.bits, threads, mask.data(), kept.span()));
                const int64_t likely = most_likely_above(values_.data(), count_, found.bits);
                expect(likely >= 0 && likely <= count_, "more magnitudes are likely than there are");
            });
        }
        for (const int64_t m : {2, 4, 7, 50}) {
            add(calls, "prune_n_m", [this, m](int threads) {
                const int64_t n = m / 2, tail = layout_.groups % m;
                const int64_t of_axis = layout_.groups / m * (m - n) + std::min(tail, m - n);
                const Guarded<Bits> kept(layout_.outer * of_axis * layout_.run);
                const Guarded<uint8_t> mask(mask_.size()), keep(count_);
                check(prune_n_m(values_.data(), layout_, n, m, threads, mask.data(), kept.span()));
                n_m_keep(values_.data(), layout_, n, m, threads, keep.data());
            });
            add(calls, "prune_blocks", [this, m](int threads) {
                const Guarded<Bits> kept(count_ / 2);
                const Guarded<uint8_t> mask(mask_.size());
                check(prune_blocks(values_.data(), layout_, std::min(m, layout_.groups), count_ - 1 - count_ / 2,
                                   threads, mask.data(), kept.span()));
            });
        }
    }

    void add_sparse(std::vector<Call>& calls) {
        add(calls, "encode_sparse", [this](int threads) {
            const Guarded<Bits> kept(ones_of(mask_, count_));
            encode_sparse(values_.data(), count_, mask_.data(), threads, kept.span());
        });
        add(calls, "decode_sparse", [this](int threads) {
            const Guarded<Bits> kept(ones_of(mask_, count_)), decoded(count_);
            decode_sparse(kept.view(), mask_.data(), count_, threads, decoded.data());
            sum_sparse_errors(values_.data(), kept.view(), mask_.data(), count_, threads);
        });
        const BlockLayout blocks({{1, layout_.outer}, {layout_.groups, layout_.run}});
        for (const int nbits : {1, 4, 8}) {
            add(calls, "look_up", [this, blocks, nbits](int threads) {
                const int64_t ones = ones_of(mask_, count_);
                const Guarded<uint8_t> gathered(packed_size(ones, nbits));
                gather_codes(codes_.data(), count_, nbits, mask_.data(), ones, threads, gathered.data());
                const Guarded<Bits> decoded(count_), kept(ones);
                look_up(gathered.data(), blocks, nbits, luts_.data(), mask_.data(), threads, kept.span());
                look_up<Bits>(codes_.data(), blocks, nbits, luts_.data(), nullptr, threads, decoded.span());
                if (nbits == 1) return;
                dequantize_kept<Bits>(gathered.data(), blocks, {nbits, true}, luts_.data(), zero_points_.data(),
                                      mask_.data(), threads, kept.span());
            });
        }
    }

    void add_scalar_palettes(std::vector<Call>& calls) {
        for (const int nbits : {1, 3, 8}) {
            for (const bool weighted : {false, true}) {
                add(calls, weighted ? "weighted palettize" : "palettize", [this, nbits, weighted](int threads) {
                    const Guarded<Bits> luts(layout_.groups << nbits);
                    const Guarded<uint8_t> packed(packed_size(count_, nbits));
                    const TableRule rule{TableMode::kKmeans, 1 << nbits, nbits == 3};
                    fit_tables(values_.data(), weighted ? importance_.data() : nullptr, layout_, rule, threads,
                               luts.data());
                    corepress::palettize(values_.data(), layout_, nbits, luts.data(), threads, packed.data());
                });
            }
            add(calls, "palettize to given tables", [this, nbits](int threads) {
                const Guarded<Bits> luts(layout_.groups << nbits);
                const Guarded<uint8_t> packed(packed_size(count_, nbits));
                fit_tables<Bits>(values_.data(), nullptr, layout_, {TableMode::kUniform, 1 << nbits}, threads,
                                 luts.data());
                corepress::palettize(values_.data(), layout_, nbits, luts_.data(), threads, packed.data());
                sum_palette_errors(values_.data(), codes_.data(), layout_, nbits, luts_.data(), threads);
                distinct_values(values_.data(), layout_, 1 << nbits, threads);
            });
        }
    }

    void add_quantized(std::vector<Call>& calls) {
        for (const BlockLayout& blocks : {BlockLayout({{1, layout_.outer}, {layout_.groups, layout_.run}}),
                                          BlockLayout({{layout_.outer * layout_.groups, layout_.run}}),
                                          BlockLayout({{1, layout_.outer * layout_.groups}, {layout_.run, 1}})}) {
            for (const bool symmetric : {false, true}) {
                add(calls, "quantize", [this, blocks, symmetric](int threads) {
                    const CodeType type{symmetric ? 4 : 8, symmetric};
                    const Guarded<Bits> scales(blocks.groups()), decoded(count_);
                    const Guarded<uint8_t> zero_points(blocks.groups()), packed(packed_size(count_, type.nbits));
                    const bool search = count_ < 10000;
                    Noise noise;
                    corepress::quantize(values_.data(), search ? importance_.data() : nullptr, blocks,
                                        {type, symmetric, search}, threads, scales.data(), zero_points.data(),
                                        packed.data(), &noise);
                    if (blocks.groups() > luts_.size()) return;
                    dequantize(codes_.data(), blocks, type, luts_.data(), zero_points_.data(), threads, decoded.data());
                    sum_quantized_errors(values_.data(), codes_.data(), blocks, type, luts_.data(), zero_points_.data(),
                                         threads);
                });
            }
        }
    }

    void add_vectors(std::vector<Call>& calls) {
        for (const int64_t length : {2, 3, 4, 8}) {
            const int64_t vectors = std::min<int64_t>(count_, 40000) / length;
            for (const bool weighted : {false, true}) {
                add(calls, weighted ? "weighted vectors" : "vectors", [this, length, vectors, weighted](int threads) {
                    constexpr int kBits = 6;
                    const GroupLayout all{1, 1, vectors};
                    const auto* const importance = reinterpret_cast<const uint32_t*>(importance_.data());
                    const VectorSource<Bits> source{
                        values_.data(), {all, 1, length}, weighted ? importance : nullptr, 1, nullptr};
                    const Guarded<Bits> luts(length << kBits), decoded(vectors * length);
                    const Guarded<uint8_t> packed(packed_size(vectors, kBits));
                    fit_vector_tables(source, 1 << kBits, threads, luts.data());
                    palettize_vectors(source, kBits, luts_.data(), threads, packed.data());
                    const VectorBlocks blocks{BlockLayout({{1, vectors}}), 1, length};
                    depalettize_vectors(codes_.data(), blocks, kBits, luts_.data(), threads, decoded.data());
                    sum_vector_errors(values_.data(), codes_.data(), blocks, kBits, luts_.data(), threads);
                });
            }
            add(calls, "cluster_vectors", [this, length, vectors](int threads) {
                constexpr int64_t kEntries = 70;
                const VectorSource<Bits> source{
                    values_.data(), {{1, 1, vectors}, 1, length}, nullptr, 1, importance_.data()};
                const Guarded<float> centroids(kEntries * length);
                const Guarded<int32_t> codes(vectors);
                cluster_vectors(source, kEntries, threads, centroids.data(), codes.data());
                for (int64_t i = 0; i < vectors; ++i) {
                    expect(codes.data()[i] >= 0 && codes.data()[i] < kEntries, "a code is beyond the entries");
                }
            });
        }
    }

    void add_parts(std::vector<Call>& calls) {
        add(calls, "normalize", [this](int threads) {
            const Guarded<Bits> scales(layout_.groups), quotients(count_);
            normalize(values_.data(), layout_, threads, scales.data(), quotients.data());
            denormalize(values_.data(), layout_, luts_.data(), threads, quotients.data());
        });
        add(calls, "sum_errors", [this](int threads) {
            sum_errors(values_.data(), second_.data(), count_, threads);
            count_nonfinite(values_.data(), count_, threads);
        });
        if constexpr (sizeof(Bits) == 4) {
            add(calls, "encode_even_steps", [this](int threads) {
                std::vector<EvenStep> steps(static_cast<size_t>(layout_.groups));
                const Guarded<uint8_t> codes(count_);
                const Guarded<uint32_t> decoded(count_);
                encode_even_steps(values_.data(), layout_, {5, false}, threads, steps.data(), codes.data());
                decode_even_steps(codes_.data(), layout_, true, steps.data(), threads, decoded.data());
                sum_even_step_errors(values_.data(), codes_.data(), layout_, false, steps.data(), threads);
                const Guarded<uint16_t> halves(count_);
                round_to_half(importance_.data(), count_, threads, halves.data());
            });
            add(calls, "pack_bits", [this](int threads) {
                const Guarded<uint8_t> packed(packed_size(count_, 5)), codes(count_);
                pack_bits(codes_.data(), count_, {5, true, true}, threads, packed.data());
                unpack_bits(codes_.data(), count_, {5, true, false}, threads, codes.data());
            });
        }
    }

    GroupLayout layout_;
    int64_t count_;
    std::string format_;
    Guarded<Bits> values_, second_, luts_;
    Guarded<float> importance_;
    Guarded<uint8_t> mask_, codes_, zero_points_;
    std::vector<std::vector<Bits>> number_patterns_;
    std::vector<std::vector<float>> importance_patterns_;
    std::vector<std::vector<uint8_t>> byte_patterns_;
    Changer changer_;  // the first to end
};

// Rows of doubles, whose patterns are of their own.
class Rows {
public:
    Rows() : values_(kRows * kColumns), weights_(kRows * kColumns) {
        changer_.add(values_, patterns_);
        changer_.add(weights_, patterns_);
    }
    void start(uint64_t seed) { changer_.start(seed); }
    void add_calls(std::vector<Call>& calls) {
        for (const bool weighted : {false, true}) {
            calls.push_back({weighted ? "weighted kmeans1d" : "kmeans1d", [this, weighted](int threads) {
                                 const int k = 17;
                                 const Guarded<int32_t> codes(kRows * kColumns);
                                 const Guarded<double> centroids(kRows * k), inertia(kRows);
                                 const RowClusters result{codes.data(), centroids.data(), inertia.data()};
                                 kmeans1d_rows(values_.data(), weighted ? weights_.data() : nullptr, kRows, kColumns,
                                               {&k, 1}, threads, {&result, 1});
                             }});
        }
    }

private:
    static constexpr int64_t kRows = 3, kColumns = 2500;
    Guarded<double> values_, weights_;
    std::vector<std::vector<double>> patterns_ = number_patterns<double>(kRows * kColumns, [](double x) { return x; });
    Changer changer_;
};

// --- What can be provoked without chance: a second pass with what a first one found of other data -------------------

void check_ranks() {
    int64_t rank = 100;
    expect(find_rank(Counts(8, 1), rank) == 7, "a rank beyond all counts is not in the last slot");
}

// A mask of more ones than there is memory for values.
template <typename Bits>
void check_full_mask(int64_t count) {
    const Guarded<Bits> values(count), decoded(count);
    std::fill_n(values.data(), count, bits_of<Bits>(1.0));
    const Guarded<uint8_t> mask(packed_size(count, 1));
    std::fill_n(mask.data(), mask.size(), uint8_t{0xff});
    const BlockLayout blocks({{1, count}});
    for (const int64_t room : {int64_t{0}, count / 3, count - 1}) {
        const Guarded<Bits> kept(room);
        encode_sparse(values.data(), count, mask.data(), 2, kept.span());
        expect(std::count(kept.data(), kept.data() + room, bits_of<Bits>(1.0)) == room, "room for values is left");
        decode_sparse(kept.view(), mask.data(), count, 2, decoded.data());
        expect(std::count(decoded.data(), decoded.data() + count, bits_of<Bits>(1.0)) == room,
               "other values are decoded than there are");
        sum_sparse_errors(values.data(), kept.view(), mask.data(), count, 2);
        for (const int nbits : {1, 4, 8}) {
            const Guarded<uint8_t> codes(packed_size(count, nbits)), gathered(packed_size(room, nbits));
            const Guarded<Bits> luts(int64_t{1} << nbits);
            gather_codes(codes.data(), count, nbits, mask.data(), room, 2, gathered.data());
            look_up(gathered.data(), blocks, nbits, luts.data(), mask.data(), 2, kept.span());
            if (nbits == 1) continue;
            dequantize_kept<Bits>(gathered.data(), blocks, {nbits, false}, luts.data(), nullptr, mask.data(), 2,
                                  kept.span());
        }
    }
}

// Less room than stays, as where values that seemed equal no longer are.
template <typename Bits>
void check_little_room(const GroupLayout& layout) {
    const int64_t count = layout.size();
    const Guarded<Bits> values(count), kept(count / 5);
    for (int64_t i = 0; i < count; ++i)
        values.data()[i] = bits_of<Bits>(1 + static_cast<double>(hash_of(static_cast<uint64_t>(i)) % 64));
    const Guarded<uint8_t> mask(packed_size(count, 1));
    for (const int64_t m : {2, 4, 8}) {
        const Pruned pruned = prune_n_m(values.data(), layout, m / 2, m, 2, mask.data(), kept.span());
        expect(pruned.ones > kept.size() && pruned.ones == ones_of(mask, count), "too few values stay");
        expect(prune_blocks(values.data(), layout, m, count / 2, 2, mask.data(), kept.span()).ones > kept.size(),
               "too few values of blocks stay");
    }
    prune_by_magnitude(values.data(), count, Bits{0}, 2, mask.data(), kept.span());
}

// Values that are finite no more when they are looked at again.
template <typename Bits>
void check_nonfinite(int64_t count) {
    for (const float number : {-std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::quiet_NaN(),
                               std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
        for (const int64_t step : {1, 2, 1000}) {
            const GroupLayout all{1, 1, count}, axis{1, count, 1};
            const Guarded<Bits> values(count), luts(2048), kept(count);
            const Guarded<float> importance(count), centroids(160);
            const Guarded<uint8_t> mask(packed_size(count, 1)), packed(count);
            const Guarded<int32_t> codes(count / 2);
            for (int64_t i = 0; i < count; ++i) {
                const auto place = static_cast<double>(i) / static_cast<double>(count);
                values.data()[i] = i % step == 0 ? Format<Bits>::from_float(number) : bits_of<Bits>(place);
                importance.data()[i] = i % step == 0 ? number : 1;
            }
            prune_blocks(values.data(), axis, 4, count / 2, 2, mask.data(), kept.span());
            const auto* const weights = reinterpret_cast<const uint32_t*>(importance.data());
            for (const float* each :
                 {static_cast<const float*>(nullptr), static_cast<const float*>(importance.data())}) {
                fit_tables(values.data(), each, all, {TableMode::kKmeans, 16}, 2, luts.data());
                const VectorSource<Bits> source{
                    values.data(), {{1, 1, count / 2}, 1, 2}, each == nullptr ? nullptr : weights, 1, nullptr};
                fit_vector_tables(source, 64, 2, luts.data());
                palettize_vectors(source, 6, luts.data(), 2, packed.data());
            }
            palettize(values.data(), all, 4, luts.data(), 2, packed.data());
            const VectorSource<Bits> shared{values.data(), {{1, 1, count / 2}, 1, 2}, nullptr, 1, importance.data()};
            cluster_vectors(shared, 80, 2, centroids.data(), codes.data());
        }
    }
}

// Keys of patterns that were not counted.
void check_buckets() {
    for (const float counted : {-3.0f, 0.0f, 1.0f, 1e30f}) {
        FloatBuckets buckets;
        const auto count = [counted](size_t stored) { return stored == bits_from_float(counted) >> 16 ? 1000 : 0; };
        buckets.divide(count, count);
        for (uint64_t key = 0; key < uint64_t{1} << 32; key += 40503) {
            expect(buckets.of(static_cast<int32_t>(static_cast<uint32_t>(key))) < buckets.size(),
                   "a key has a bucket beyond the last");
        }
    }
    FloatBuckets heavy;
    heavy.divide([](size_t) { return int64_t{1} << 30; },
                 [](size_t) { return std::numeric_limits<double>::infinity(); });
    expect(heavy.size() <= size_t{1} << 18, "weights that are no numbers take too many buckets");
}

void check_points() {
    std::vector<Point> points;
    const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
    for (const double value : {nan, 1.0, 0.5, nan, 2.0, -1.0, infinity, nan}) {
        append_point(value, value, points);
    }
    for (size_t i = 0; i < points.size(); ++i) {
        expect(std::isfinite(points[i].value) && std::isfinite(points[i].weight) && points[i].weight > 0,
               "a point is not finite");
        expect(i == 0 || points[i - 1].value < points[i].value, "points do not ascend");
    }
}

void check_rows() {
    for (const double number : {std::nan(""), HUGE_VAL, -1.0}) {
        const std::vector<double> values(100, 1.0), others(100, number);
        std::vector<int32_t> codes(100);
        double centroids[3], inertia;
        const int k = 3;
        const RowClusters result{codes.data(), centroids, &inertia};
        const auto fails = [&](const std::vector<double>& each, const double* weights) {
            try {
                kmeans1d_rows(each.data(), weights, 1, 100, {&k, 1}, 1, {&result, 1});
            } catch (const std::invalid_argument&) {
                return true;
            }
            return false;
        };
        expect(number == -1.0 || fails(others, nullptr), "values that are not finite are clustered");
        expect(fails(values, others.data()), "weights that are no weights are taken");
    }
}

template <typename Bits>
void check_format(Watch& watch) {
    for (const int64_t count : {1, 63, 64, 65, 1000, 70001}) check_full_mask<Bits>(count);
    for (const GroupLayout& layout : {GroupLayout{1, 64, 1}, GroupLayout{1, 4096, 1}, GroupLayout{40, 96, 9}}) {
        check_little_room<Bits>(layout);
    }
    for (const int64_t count : {3000, 20000}) {
        watch.begin("values that are not finite");
        check_nonfinite<Bits>(count);
    }
}

void check_all(Watch& watch) {
    check_ranks();
    check_buckets();
    check_points();
    check_rows();
    for (const std::string& level : simd_levels()) {
        set_simd_level(level);
        watch.begin("checks at " + level);
        check_format<uint16_t>(watch);
        check_format<BFloat16Bits>(watch);
        check_format<uint32_t>(watch);
    }
}

// --- And with chance ------------------------------------------------------------------------------------------------

using Clock = std::chrono::steady_clock;

// Every call of a tensor at every level, until the time is over. Returns how many ended, and in exceptions.
template <typename Subject>
void run_calls(Subject& subject, uint64_t seed, int turns, Clock::time_point end, Watch& watch, int64_t* calls_made,
               int64_t* exceptions) {
    std::vector<Call> calls;
    subject.add_calls(calls);
    subject.start(seed);
    for (const Call& call : calls) {
        for (const std::string& level : simd_levels()) {
            set_simd_level(level);
            for (int turn = 0; turn < turns; ++turn) {
                watch.begin(call.name + " at " + level);
                try {
                    call.run(turn % 2 == 0 ? 3 : 1);
                } catch (const std::invalid_argument&) {
                    ++*exceptions;
                }
                ++*calls_made;
                if (Clock::now() > end) return;
            }
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    const bool is_long = argc == 3 && std::string(argv[1]) == "--seconds";
    if (argc != 1 && !is_long) {
        std::fprintf(stderr, "usage: %s [--seconds SECONDS]\n", argv[0]);
        return 2;
    }
    const int64_t seconds = is_long ? std::atoll(argv[2]) : 0;
    const auto end = is_long ? Clock::now() + std::chrono::seconds(seconds) : Clock::time_point::max();
    Watch watch(300);
    int64_t calls = 0, exceptions = 0;
    try {
        check_all(watch);
        // Sizes that are sampled, counted in a histogram or sorted; rows of one value, of few, and of many.
        const std::vector<GroupLayout> layouts =
            is_long ? std::vector<GroupLayout>{{1, 1, 70001}, {1, 3000, 1}, {3, 40000, 9}, {7, 96, 9}, {1, 1, 30000}}
                    : std::vector<GroupLayout>{{1, 1, 20001}};
        uint64_t seed = 0;
        do {
            for (const GroupLayout& layout : layouts) {
                const auto run = [&](auto subject) {
                    run_calls(*subject, ++seed, is_long ? 6 : 1, end, watch, &calls, &exceptions);
                };
                run(std::make_unique<Tensor<uint16_t>>(layout, "float16"));
                run(std::make_unique<Tensor<BFloat16Bits>>(layout, "bfloat16"));
                run(std::make_unique<Tensor<uint32_t>>(layout, "float32"));
            }
            auto rows = std::make_unique<Rows>();
            run_calls(*rows, ++seed, is_long ? 50 : 5, end, watch, &calls, &exceptions);
        } while (is_long && Clock::now() < end);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    std::printf("%lld calls while arrays changed, %lld of them ended in exceptions\n", static_cast<long long>(calls),
                static_cast<long long>(exceptions));
    return 0;
}
