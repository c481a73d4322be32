// Runs every kernel at every level this machine has, with several thread counts, on drawn data, and prints one digest
// of all results. It must be the same for all levels and on all machines: the exit status says whether it is
// digest.txt's.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <string>
#include <vector>

#include "algo/fit_tables.h"
#include "algo/measure.h"
#include "algo/nested.h"
#include "algo/palettize.h"
#include "algo/prune.h"
#include "algo/quantize.h"
#include "algo/structure.h"
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

template <typename Bits>
void add_quantized(const std::vector<Bits>& values, const BlockLayout& layout, int threads, Digest& digest,
                   std::vector<Bits>& decoded) {
    for (const IntegerType type : {IntegerType{4, false}, IntegerType{4, true}, IntegerType{8, true}}) {
        for (const bool symmetric : {true, false}) {
            const auto groups = static_cast<size_t>(layout.groups());
            std::vector<Bits> scales(groups);
            std::vector<uint8_t> zero_points(groups);
            std::vector<uint8_t> codes((values.size() * static_cast<size_t>(type.nbits) + 7) / 8);
            const bool search = values.size() < 20000 && type.nbits == 4;
            quantize(values.data(), layout, {type, symmetric, search}, threads, scales.data(), zero_points.data(),
                     codes.data());
            dequantize(codes.data(), layout, type, scales.data(), zero_points.data(), threads, decoded.data());
            digest.add(scales);
            digest.add(zero_points);
            digest.add(codes);
            digest.add(decoded);
        }
    }
}

template <typename Bits>
void add_results(const GroupLayout& layout, int threads, Digest& digest) {
    const int64_t count = layout.size();
    const size_t size = static_cast<size_t>(count), groups = static_cast<size_t>(layout.groups);
    const std::vector<Bits> values = draw<Bits>(count);
    std::vector<Bits> decoded(size);
    for (const int nbits : {1, 2, 3, 4, 6, 8}) {
        std::vector<Bits> luts(groups << nbits);
        std::vector<uint8_t> packed((size * static_cast<size_t>(nbits) + 7) / 8);
        fit_tables(values.data(), layout, TableMode::kKmeans, 1 << nbits, threads, luts.data());
        palettize(values.data(), layout, nbits, luts.data(), threads, packed.data());
        const BlockLayout blocks({{1, layout.outer}, {layout.groups, layout.run}});
        look_up<Bits>(packed.data(), blocks, nbits, luts.data(), nullptr, threads, decoded.data());
        digest.add(luts);
        digest.add(packed);
        digest.add(decoded);
    }
    add_quantized(values, BlockLayout({{1, layout.outer}, {layout.groups, layout.run}}), threads, digest, decoded);
    const ErrorSums errors = sum_errors(values.data(), decoded.data(), count, threads);
    digest.add(std::vector<double>{errors.squared_error, errors.squared_first, errors.squared_second, errors.product,
                                   errors.largest_error});
    const Bits threshold = magnitude_of_rank(values.data(), count, count / 2, threads);
    std::vector<uint8_t> mask((size + 7) / 8);
    std::vector<Bits> kept(static_cast<size_t>(magnitude_mask(values.data(), count, threshold, threads, mask.data())));
    encode_sparse(values.data(), count, mask.data(), threads, kept.data());
    decode_sparse(kept.data(), mask.data(), count, threads, decoded.data());
    digest.add(mask);
    digest.add(kept);
    digest.add(decoded);
    std::vector<uint8_t> keep(size);
    for (const int64_t m : {2, 4, 7, 16, 40}) {
        n_m_mask(values.data(), layout, m / 2, m, threads, keep.data());
        digest.add(keep);
        block_mask(values.data(), layout, std::min(m, layout.groups), count / 2, threads, keep.data());
        digest.add(keep);
        mask_of_kept(values.data(), keep.data(), count, threads, mask.data());
        digest.add(mask);
    }
}

// Codes of any grid of blocks, all of them and those that a mask keeps.
template <typename Bits>
void add_nested(const BlockLayout& layout, int threads, Digest& digest) {
    const int64_t count = layout.size();
    const auto size = static_cast<size_t>(count), groups = static_cast<size_t>(layout.groups());
    const std::vector<Bits> values = draw<Bits>(count);
    std::vector<uint8_t> mask((size + 7) / 8);
    const Bits threshold = magnitude_of_rank(values.data(), count, count / 3, threads);
    const auto kept = static_cast<size_t>(magnitude_mask(values.data(), count, threshold, threads, mask.data()));
    for (const int nbits : {1, 3, 4, 8}) {
        std::vector<uint8_t> packed((size * static_cast<size_t>(nbits) + 7) / 8);
        for (size_t i = 0; i < packed.size(); ++i) packed[i] = static_cast<uint8_t>(i * 2654435761u >> 13);
        std::vector<uint8_t> gathered((kept * static_cast<size_t>(nbits) + 7) / 8);
        gather_codes(packed.data(), count, nbits, mask.data(), threads, gathered.data());
        digest.add(gathered);
        const std::vector<Bits> luts = draw<Bits>(layout.groups() << nbits);
        std::vector<Bits> decoded(size), survivors(kept);
        look_up<Bits>(packed.data(), layout, nbits, luts.data(), nullptr, threads, decoded.data());
        look_up<Bits>(gathered.data(), layout, nbits, luts.data(), mask.data(), threads, survivors.data());
        digest.add(decoded);
        digest.add(survivors);
        if (nbits < 4) continue;
        const std::vector<uint8_t> zero_points(groups, 3);
        dequantize_kept<Bits>(gathered.data(), layout, {nbits, true}, luts.data(), zero_points.data(), mask.data(),
                              threads, survivors.data());
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

std::string digest_of(const std::string& level, int threads) {
    set_simd_level(level);
    Digest digest;
    for (const GroupLayout layout :
         {GroupLayout{1, 1, 1}, GroupLayout{1, 1, 1023}, GroupLayout{1, 5, 321}, GroupLayout{64, 24, 1},
          GroupLayout{9, 3, 7}, GroupLayout{1, 1, 200001}, GroupLayout{2, 3, 30011}}) {
        add_results<uint16_t>(layout, threads, digest);
        add_results<uint32_t>(layout, threads, digest);
        add_normalized<uint16_t>(layout, threads, digest);
        add_normalized<uint32_t>(layout, threads, digest);
    }
    for (const BlockLayout& layout :
         {BlockLayout({{3001, 32}}), BlockLayout({{4, 32}, {515, 1}}), BlockLayout({{5, 7}, {3, 9}, {11, 2}}),
          BlockLayout({{1, 3}, {40, 31}, {97, 1}}), BlockLayout({{2, 33}, {9000, 1}})}) {
        std::vector<uint16_t> halves(static_cast<size_t>(layout.size()));
        std::vector<uint32_t> floats(halves.size());
        add_quantized(draw<uint16_t>(layout.size()), layout, threads, digest, halves);
        add_quantized(draw<uint32_t>(layout.size()), layout, threads, digest, floats);
        add_nested<uint16_t>(layout, threads, digest);
        add_nested<uint32_t>(layout, threads, digest);
    }
    return digest.text();
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s digest.txt\n", argv[0]);
        return 2;
    }
    std::string expected;
    std::ifstream(argv[1]) >> expected;
    bool equal = true;
    for (const std::string& level : simd_levels()) {
        for (const int threads : {1, 2, 5}) {
            const std::string digest = digest_of(level, threads);
            std::printf("%s, %d threads: %s\n", level.c_str(), threads, digest.c_str());
            equal = equal && digest == expected;
        }
    }
    std::printf("%s\n", equal ? "as expected" : "NOT as expected");
    return equal ? 0 : 1;
}
