// Where the kept elements of a tensor stand.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace corepress {

// Where the values of each piece of kGrain begin among the kept ones; at the end, their number.
std::vector<int64_t> piece_offsets(const uint8_t* mask, int64_t count, int threads);

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
