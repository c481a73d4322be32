#include "algo/palettize/palettize.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "algo/common/measure.h"
#include "core/half.h"
#include "core/parallel.h"
#include "dispatch.h"

namespace corepress {
namespace {

// The largest key of a value that is no farther from `below` than from `above`.
template <typename Bits>
typename Format<Bits>::Key cut_between(Bits below, Bits above) {
    if (below == static_cast<Bits>(Format<Bits>::kInfinity | ~Format<Bits>::kMagnitude)) return key_from_bits(below);
    if (above == Format<Bits>::kInfinity) return key_from_bits(static_cast<Bits>(above - 1));
    const double middle =
        (static_cast<double>(Format<Bits>::to_float(below)) + static_cast<double>(Format<Bits>::to_float(above))) / 2;
    int64_t key = key_from_bits(bits_from_double<Bits>(middle));
    while (value_of_key<Bits>(key) > middle) --key;
    while (value_of_key<Bits>(key + 1) <= middle) ++key;
    return static_cast<typename Format<Bits>::Key>(key);
}

// Entries ascend. The last ones, where they repeat each other, are never reached. cuts: entries, the last the largest
// key.
template <typename Bits>
void find_cuts(const Bits* lut, int entries, typename Format<Bits>::Key* cuts) {
    int used = entries;
    while (used > 1 && lut[used - 1] == lut[used - 2]) --used;
    for (int j = 0; j + 1 < used; ++j) cuts[j] = cut_between(lut[j], lut[j + 1]);
    std::fill(cuts + used - 1, cuts + entries, std::numeric_limits<typename Format<Bits>::Key>::max());
}

// For each code of each table the first of its equal entries; empty where no entry repeats another, but for the last
// ones, which are never reached.
template <typename Bits>
std::vector<uint8_t> first_of_equal(const Bits* luts, int64_t groups, int entries) {
    std::vector<uint8_t> first(static_cast<size_t>(groups * entries));
    bool any = false;
    for (int64_t group = 0; group < groups; ++group) {
        const Bits* const lut = luts + group * entries;
        uint8_t* const codes = first.data() + group * entries;
        for (int j = 1; j < entries; ++j) {
            const bool repeats = lut[j] == lut[j - 1];
            codes[j] = repeats ? codes[j - 1] : static_cast<uint8_t>(j);
            any = any || (repeats && lut[j] != lut[entries - 1]);
        }
    }
    return any ? first : std::vector<uint8_t>{};
}

// Assigns codes by whichever kernel is fastest for the format, the table size and the length of the runs.
template <typename Bits>
class Assigner {
public:
    using Key = typename Format<Bits>::Key;

    // With `shared`, all values have one table and it pays to prepare the code of every pattern of their upper 16 bits.
    Assigner(const Key* cuts, int entries, bool shared) : cuts_(cuts), entries_(entries) {
        if (shared && (entries > 16 || sizeof(Bits) == 2)) prepare_table();
    }

    void assign(const Bits* values, int64_t count, int64_t group, uint8_t* codes) const {
        const auto& kernels = kernels_for<Bits>(corepress::kernels());
        const Key* const cuts = cuts_ + group * entries_;
        if (!first_codes_.empty()) {
            kernels.assign_by_table(values, count, first_codes_.data(), span_, cuts, codes);
        } else if (entries_ <= 16 || (entries_ <= 64 && count >= 64)) {
            kernels.assign_by_cuts(values, count, cuts, entries_ - 1, codes);
        } else {
            kernels.assign_by_search(values, count, cuts, entries_ - 1, codes);
        }
    }

private:
    void prepare_table() {
        constexpr int kLow = Format<Bits>::kWidth - 16;
        constexpr int kLongestSpan = 4;
        int shared_cuts = 0;
        for (int j = 0; j + 1 < entries_ && kLow > 0; ++j) {
            const bool same = j > 0 && (cuts_[j] >> kLow) == (cuts_[j - 1] >> kLow);
            shared_cuts = same ? shared_cuts + 1 : 1;
            span_ = std::max(span_, shared_cuts);
        }
        if (span_ > kLongestSpan) return;
        first_codes_.resize(kPatterns);
        int begin = -kPatterns / 2;
        for (int j = 0; j < entries_; ++j) {
            const int end = static_cast<int>(cuts_[j] >> kLow) + 1;
            fill(begin, std::min(end, 0), j);
            fill(std::max(begin, 0), end, j);
            begin = std::max(begin, end);
        }
    }

    // For keys of one sign: as bits they ascend from 0 on and descend below.
    void fill(int begin, int end, int code) {
        if (begin >= end) return;
        const int first = begin >= 0 ? begin : bits_from_key<uint16_t>(static_cast<int16_t>(end - 1));
        std::memset(first_codes_.data() + first, code, static_cast<size_t>(end - begin));
    }

    const Key* cuts_;
    int entries_;
    int span_ = 0;
    std::vector<uint8_t> first_codes_;
};

}  // namespace

template <typename Bits>
void palettize(const Bits* values, const GroupLayout& layout, int nbits, const Bits* luts, int threads,
               uint8_t* packed) {
    using Key = typename Format<Bits>::Key;
    if (layout.size() == 0) return;
    const int entries = 1 << nbits;
    std::vector<Key> cuts(static_cast<size_t>(layout.groups * entries));
    for (int64_t group = 0; group < layout.groups; ++group) {
        find_cuts(luts + group * entries, entries, cuts.data() + group * entries);
    }
    const std::vector<uint8_t> first = first_of_equal(luts, layout.groups, entries);
    const Assigner<Bits> assigner(cuts.data(), entries, layout.groups == 1 && layout.size() >= kGrain);
    parallel_pieces(layout.size(), kGrain, threads, [&](int64_t begin, int64_t end) {
        constexpr int64_t kTile = 4096;
        uint8_t codes[kTile];
        for (int64_t tile = begin; tile < end; tile += kTile) {
            const int64_t stop = std::min(tile + kTile, end);
            for_each_run(layout, tile, stop, [&](int64_t group, int64_t offset, int64_t length) {
                uint8_t* const run = codes + (offset - tile);
                assigner.assign(values + offset, length, group, run);
                if (first.empty()) return;
                for (int64_t i = 0; i < length; ++i) run[i] = first[static_cast<size_t>(group * entries + run[i])];
            });
            kernels().pack(codes, stop - tile, nbits, packed + tile * nbits / 8);
        }
    });
}

namespace {

// Decodes [begin, end), where begin is a multiple of 8, to values[0] and on.
template <typename Bits>
void decode_part(const uint8_t* packed, const GroupLayout& layout, int nbits, const Bits* luts, int64_t begin,
                 int64_t end, Bits* values) {
    constexpr int64_t kTile = 4096;
    uint8_t codes[kTile];
    const auto& value_kernels = kernels_for<Bits>(kernels());
    for (int64_t tile = begin; tile < end; tile += kTile) {
        const int64_t stop = std::min(tile + kTile, end);
        kernels().unpack(packed + tile * nbits / 8, stop - tile, nbits, codes);
        for_each_run(layout, tile, stop, [&](int64_t group, int64_t offset, int64_t length) {
            value_kernels.look_up(codes + (offset - tile), length, luts + (group << nbits), 1 << nbits,
                                  values + (offset - begin));
        });
    }
}

}  // namespace

template <typename Bits>
ErrorSums sum_palette_errors(const Bits* first, const uint8_t* packed, const GroupLayout& layout, int nbits,
                             const Bits* luts, int threads) {
    return sum_errors_of(first, layout.size(), threads, [&](int64_t begin, int64_t end, std::vector<Bits>& decoded) {
        decoded.resize(static_cast<size_t>(kGrain));
        decode_part(packed, layout, nbits, luts, begin, end, decoded.data());
        return static_cast<const Bits*>(decoded.data());
    });
}

template void palettize(const uint16_t*, const GroupLayout&, int, const uint16_t*, int, uint8_t*);
template void palettize(const BFloat16Bits*, const GroupLayout&, int, const BFloat16Bits*, int, uint8_t*);
template void palettize(const uint32_t*, const GroupLayout&, int, const uint32_t*, int, uint8_t*);
template ErrorSums sum_palette_errors(const uint16_t*, const uint8_t*, const GroupLayout&, int, const uint16_t*, int);
template ErrorSums sum_palette_errors(const BFloat16Bits*, const uint8_t*, const GroupLayout&, int, const BFloat16Bits*,
                                      int);
template ErrorSums sum_palette_errors(const uint32_t*, const uint8_t*, const GroupLayout&, int, const uint32_t*, int);

}  // namespace corepress
