// Where the kept elements of a tensor stand.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

#include "algo/prune/prune.h"
#include "core/half.h"
#include "core/parallel.h"
#include "core/span.h"
#include "dispatch.h"

namespace corepress {

// Where the values of each piece of kGrain begin among the kept ones; at the end, their number. No more than `most`,
// which is what there is memory for: the mask may have changed since its ones were counted for that.
std::vector<int64_t> piece_offsets(const uint8_t* mask, int64_t count, int64_t most, int threads);

// The kept values of the piece of kGrain that starts at `begin`.
template <typename T>
Span<T> part_of(Span<T> kept, const std::vector<int64_t>& offsets, int64_t begin) {
    const int64_t* const bounds = offsets.data() + begin / kGrain;
    return {kept.data() + bounds[0], bounds[1] - bounds[0]};
}

// Writes what stays of the piece [begin, end), while the memory comes that its thread most likely reads after it.
template <typename Bits>
void compact_piece(const Bits* values, int64_t count, int64_t begin, int64_t end, int threads, const uint8_t* mask,
                   Span<Bits> kept) {
    const int64_t length = end - begin, next = std::min(begin + threads * length, count - length);
    kernels_for<Bits>(kernels()).compact(values + begin, length, mask + begin / 8, kept.data(), kept.size(),
                                         values + next);
}

// Reads the values once: each piece of `grain`, a multiple of 8, gets its mask by mask_piece(values, count, mask,
// largest), which is what ValueKernels::mask_above does and must not throw; as soon as the pieces before it have been
// counted, what stays is written, while the piece is in the cache, as far as `kept` has room for whole pieces.
template <typename Bits, typename MaskPiece>
Pruned prune_pieces(const Bits* values, int64_t count, int64_t grain, int threads, uint8_t* mask, Span<Bits> kept,
                    const MaskPiece& mask_piece) {
    RunningSum ones((count + grain - 1) / grain);
    std::atomic<bool> is_finite{true};
    parallel_pieces(count, grain, threads, [&](int64_t begin, int64_t end) {
        Bits largest = 0;
        const int64_t found = mask_piece(values + begin, end - begin, mask + begin / 8, &largest);
        if (largest >= Format<Bits>::kInfinity) is_finite = false;
        const int64_t first = ones.add(begin / grain, found);
        if (first + found > kept.size()) return;
        compact_piece(values, count, begin, end, threads, mask, Span<Bits>(kept.data() + first, found));
    });
    return {ones.total(), is_finite};
}

// Ones among the bits [begin, begin + length), which need not start at a byte.
inline int64_t count_ones(const uint8_t* mask, int64_t begin, int64_t length) {
    int64_t ones = 0;
    for (int64_t end = begin + length; begin < end;) {
        const int64_t skipped = begin % 8, room = 64 - skipped;
        const int64_t taken = end - begin < room ? end - begin : room;
        uint64_t word = 0;
        std::memcpy(&word, mask + begin / 8, static_cast<size_t>((skipped + taken + 7) / 8));
        word >>= skipped;
        if (taken < 64) word &= (uint64_t{1} << taken) - 1;
        ones += __builtin_popcountll(word);
        begin += taken;
    }
    return ones;
}

}  // namespace corepress
