// Structured pruning: the n smallest magnitudes of every m, and blocks by their norm.
//
// A magnitude's rank within its group is a count of comparisons: of those before it that are not larger, and of those
// behind it that are smaller, so that of equal ones the first is the smaller. Nothing depends on a branch.

constexpr int64_t kGroupTile = 2048;

// A group of m rows of `run` values, `stride` apart. Compares whole rows, so it needs many values a row to be fast.
template <typename Bits>
void keep_of_rows(const Bits* values, int64_t m, int64_t run, int64_t stride, int64_t n, uint8_t* keep) {
    constexpr int64_t kWidth = 128;
    const Bits zeroed = static_cast<Bits>(n);  // of 64 bits, it would be compared in lanes as wide
    for (int64_t begin = 0; begin < run; begin += kWidth) {
        const int64_t width = run - begin < kWidth ? run - begin : kWidth;
        for (int64_t row = 0; row < m; ++row) {
            const Bits* const own = values + row * stride + begin;
            Bits rank[kWidth] = {};
            for (int64_t other = 0; other < row; ++other) {
                const Bits* const before = values + other * stride + begin;
                for (int64_t i = 0; i < width; ++i) {
                    rank[i] = static_cast<Bits>(rank[i] + (magnitude_of(before[i]) <= magnitude_of(own[i])));
                }
            }
            for (int64_t other = row + 1; other < m; ++other) {
                const Bits* const behind = values + other * stride + begin;
                for (int64_t i = 0; i < width; ++i) {
                    rank[i] = static_cast<Bits>(rank[i] + (magnitude_of(behind[i]) < magnitude_of(own[i])));
                }
            }
            for (int64_t i = 0; i < width; ++i) keep[row * run + begin + i] = rank[i] >= zeroed ? 1 : 0;
        }
    }
}

// The same for rows of few values: all values of as many groups as fit a tile are compared with those `distance` rows
// away, and what belongs to another group does not count.
template <typename Bits>
void keep_of_groups(const Bits* values, int64_t groups, int64_t m, int64_t run, int64_t n, uint8_t* keep) {
    constexpr int64_t kWidth = 128;
    const Bits zeroed = static_cast<Bits>(n);
    const int64_t size = m * run;
    const int64_t per_tile = groups < kGroupTile / size ? groups : kGroupTile / size;
    Bits row[kGroupTile];
    for (int64_t group = 0, i = 0; group < per_tile; ++group) {
        for (int64_t j = 0; j < m; ++j) {
            for (const int64_t end = i + run; i < end; ++i) row[i] = static_cast<Bits>(j);
        }
    }
    Bits padded[3 * kGroupTile];  // comparisons reach over both ends, though nothing there counts
    Bits* const magnitude = padded + kGroupTile;
    memset(magnitude - size, 0, static_cast<size_t>(size) * sizeof(Bits));
    memset(magnitude + per_tile * size, 0, static_cast<size_t>(size) * sizeof(Bits));
    for (int64_t first = 0; first < groups; first += per_tile) {
        const int64_t count = (groups - first < per_tile ? groups - first : per_tile) * size;
        for (int64_t i = 0; i < count; ++i) magnitude[i] = magnitude_of(values[first * size + i]);
        for (int64_t begin = 0; begin < count; begin += kWidth) {
            const int64_t width = count - begin < kWidth ? count - begin : kWidth;
            const Bits* const own = magnitude + begin;
            const Bits* const own_row = row + begin;
            Bits rank[kWidth] = {};
            for (int64_t distance = 1; distance < m; ++distance) {
                const Bits* const before = own - distance * run;
                const Bits* const behind = own + distance * run;
                const Bits first_row = static_cast<Bits>(distance), end_row = static_cast<Bits>(m - distance);
                for (int64_t i = 0; i < width; ++i) {
                    const bool smaller_before = (own_row[i] >= first_row) & (before[i] <= own[i]);
                    const bool smaller_behind = (own_row[i] < end_row) & (behind[i] < own[i]);
                    rank[i] = static_cast<Bits>(rank[i] + smaller_before + smaller_behind);
                }
            }
            for (int64_t i = 0; i < width; ++i) keep[first * size + begin + i] = rank[i] >= zeroed ? 1 : 0;
        }
    }
}

// Groups that fill a Word each: turning the words brings the other values of a group to the place of each. A difference
// of magnitudes fits a key, also less one, which makes equal ones before a value smaller.
template <typename Word, typename Bits>
void keep_of_words(const Bits* values, int64_t groups, int64_t n, uint8_t* keep) {
    using Key = typename Format<Bits>::Key;
    constexpr int kWidth = Format<Bits>::kWidth, kValues = kRegisterBytes / sizeof(Key),
                  kGroup = sizeof(Word) / sizeof(Key);
    typedef Key Keys __attribute__((vector_size(kRegisterBytes)));
    typedef Word Words __attribute__((vector_size(kRegisterBytes)));
    typedef int8_t Bytes __attribute__((vector_size(kValues)));
    Keys from_before[kGroup] = {};  // by how many values words are turned
    for (int turn = 1; turn < kGroup; ++turn) {
        for (int i = 0; i < kValues; ++i) from_before[turn][i] = i % kGroup + turn >= kGroup ? 1 : 0;
    }
    const int64_t count = groups * kGroup;
    const Key zeroed = static_cast<Key>(n);
    for (int64_t begin = 0; begin < count; begin += kValues) {
        const size_t length = static_cast<size_t>(count - begin < kValues ? count - begin : kValues);
        Keys own = {}, rank = {};
        if (length == kValues) {
            memcpy(&own, values + begin, sizeof own);
        } else {
            memcpy(&own, values + begin, length * sizeof(Key));
        }
        own &= static_cast<Key>(Format<Bits>::kMagnitude);
        const Words words = reinterpret_cast<Words>(own);
        for (int turn = 1; turn < kGroup; ++turn) {
            const int right = turn * kWidth, left = (kGroup - turn) * kWidth;
            const Keys other = reinterpret_cast<Keys>((words >> right) | (words << left));
            rank -= (other - own - from_before[turn]) >> (kWidth - 1);
        }
        const Bytes kept = __builtin_convertvector(rank >= zeroed, Bytes) & static_cast<int8_t>(1);
        if (length == kValues) {
            memcpy(keep + begin, &kept, sizeof kept);
        } else {
            memcpy(keep + begin, &kept, length);
        }
    }
}

template <typename Bits>
void keep_largest(const Bits* values, int64_t groups, int64_t m, int64_t run, int64_t stride, int64_t n,
                  uint8_t* keep) {
    constexpr auto kSize = static_cast<int64_t>(sizeof(Bits));
    const int64_t size = m * run;
    const bool is_one_run = run == stride;
    if (is_one_run && run == 1 && m * kSize == 8) return keep_of_words<uint64_t>(values, groups, n, keep);
    if constexpr (sizeof(Bits) == 2) {
        if (is_one_run && run == 1 && m == 2) return keep_of_words<uint32_t>(values, groups, n, keep);
    }
    if (is_one_run && run < 64 && size <= kGroupTile) return keep_of_groups(values, groups, m, run, n, keep);
    for (int64_t i = 0; i < groups; ++i) {
        keep_of_rows(values + i * m * stride, m, run, stride, n, keep + i * size);
    }
}

inline double square_of(float value) { return static_cast<double>(value) * static_cast<double>(value); }

// Sums of `length` neighbouring squares, in their order.
inline __attribute__((always_inline)) void sum_squares_of_runs(const float* single, int64_t blocks, int64_t length,
                                                               double* sums) {
    for (int64_t i = 0; i < blocks; ++i) {
        double sum = square_of(single[i * length]);
        for (int64_t j = 1; j < length; ++j) sum += square_of(single[i * length + j]);
        sums[i] = sum;
    }
}

// Sums of `rows` rows of `run` squares, row by row.
inline __attribute__((always_inline)) void sum_squares_of_rows(const float* single, int64_t blocks, int64_t rows,
                                                               int64_t run, double* sums) {
    for (int64_t i = 0; i < blocks; ++i, sums += run) {
        for (int64_t j = 0; j < run; ++j) sums[j] = square_of(*single++);
        for (int64_t row = 1; row < rows; ++row) {
            for (int64_t j = 0; j < run; ++j) sums[j] += square_of(*single++);
        }
    }
}

// Adds, for each of a row's `run` places, the squares of the `block_size` rows of a block, in their order.
template <typename Bits>
void sum_block_squares(const Bits* values, int64_t blocks, int64_t block_size, int64_t run, int64_t stride,
                       double* sums) {
    float single[kTile];
    const int64_t size = block_size * run;
    if (run == stride && size <= kTile) {
        const int64_t per_tile = kTile / size;
        for (int64_t first = 0; first < blocks; first += per_tile) {
            const int64_t count = blocks - first < per_tile ? blocks - first : per_tile;
            double* const of_tile = sums + first * run;
            widen(values + first * size, count * size, single);
            if (run == 1) {
                if (size == 2) {
                    sum_squares_of_runs(single, count, 2, of_tile);
                } else if (size == 4) {
                    sum_squares_of_runs(single, count, 4, of_tile);
                } else if (size == 8) {
                    sum_squares_of_runs(single, count, 8, of_tile);
                } else {
                    sum_squares_of_runs(single, count, size, of_tile);
                }
            } else if (run == 9) {  // of kernels of 3x3
                sum_squares_of_rows(single, count, block_size, 9, of_tile);
            } else {
                sum_squares_of_rows(single, count, block_size, run, of_tile);
            }
        }
        return;
    }
    for (int64_t i = 0; i < blocks; ++i) {
        const Bits* const block = values + i * block_size * stride;
        double* const of_block = sums + i * run;
        memset(of_block, 0, static_cast<size_t>(run) * sizeof *sums);
        if (stride == 1) {
            for (int64_t begin = 0; begin < block_size; begin += kTile) {
                const int64_t count = block_size - begin < kTile ? block_size - begin : kTile;
                widen(block + begin, count, single);
                for (int64_t j = 0; j < count; ++j) *of_block += square_of(single[j]);
            }
            continue;
        }
        for (int64_t begin = 0; begin < run; begin += kTile) {
            const int64_t count = run - begin < kTile ? run - begin : kTile;
            for (int64_t row = 0; row < block_size; ++row) {
                widen(block + row * stride + begin, count, single);
                for (int64_t j = 0; j < count; ++j) of_block[begin + j] += square_of(single[j]);
            }
        }
    }
}

int64_t take_sums_between(const double* sums, int64_t count, uint64_t first, uint64_t length, uint64_t* taken,
                          int64_t* below) {
    int64_t found = 0, less = 0, i = 0;
#if defined(__AVX512F__)
    const __m512i from = _mm512_set1_epi64(static_cast<long long>(first));
    const __m512i width = _mm512_set1_epi64(static_cast<long long>(length));
    for (; i + 8 <= count; i += 8) {
        const __m512i bits = _mm512_loadu_si512(sums + i);
        const __mmask8 inside = _mm512_cmplt_epu64_mask(_mm512_sub_epi64(bits, from), width);
        less += count_ones(_mm512_cmplt_epu64_mask(bits, from));
        _mm512_storeu_si512(taken + found, _mm512_maskz_compress_epi64(inside, bits));
        found += count_ones(inside);
    }
#endif
    for (; i < count; ++i) {  // without branches, which sums in no order would mislead
        uint64_t bits;
        memcpy(&bits, sums + i, sizeof bits);
        less += bits < first ? 1 : 0;
        taken[found] = bits;
        found += bits - first < length ? 1 : 0;
    }
    *below += less;
    return found;
}

// Copies short rows of bytes without a call.
inline void copy_row(const uint8_t* from, int64_t count, uint8_t* to) {
    if (count < 8 || count > 16) {
        memcpy(to, from, static_cast<size_t>(count));
        return;
    }
    uint64_t first, last;
    memcpy(&first, from, sizeof first);
    memcpy(&last, from + count - 8, sizeof last);
    memcpy(to, &first, sizeof first);
    memcpy(to + count - 8, &last, sizeof last);
}

// Writes Word, whose bytes are all 0 or 1, for each sum.
template <typename Word>
inline void keep_words_above(const double* sums, int64_t count, double limit, uint8_t* keep) {
    const Word ones = static_cast<Word>(0x0101010101010101u);
    for (int64_t i = 0; i < count; ++i) {
        const Word word = sums[i] > limit ? ones : Word{0};
        memcpy(keep + i * static_cast<int64_t>(sizeof word), &word, sizeof word);
    }
}

// keep is 1 in the places, of all rows of a block, whose sum is above the limit.
void keep_blocks_above(const double* sums, int64_t blocks, int64_t block_size, int64_t run, double limit,
                       uint8_t* keep) {
    if (run == 1 && block_size == 2) return keep_words_above<uint16_t>(sums, blocks, limit, keep);
    if (run == 1 && block_size == 4) return keep_words_above<uint32_t>(sums, blocks, limit, keep);
    if (run == 1 && block_size == 8) return keep_words_above<uint64_t>(sums, blocks, limit, keep);
    uint8_t above[kTile];
    for (int64_t i = 0; i < blocks; ++i, sums += run, keep += block_size * run) {
        if (run == 1) {
            memset(keep, sums[0] > limit ? 1 : 0, static_cast<size_t>(block_size));
            continue;
        }
        for (int64_t begin = 0; begin < run; begin += kTile) {
            const int64_t count = run - begin < kTile ? run - begin : kTile;
            for (int64_t j = 0; j < count; ++j) above[j] = sums[begin + j] > limit ? 1 : 0;
            for (int64_t row = 0; row < block_size; ++row) copy_row(above, count, keep + row * run + begin);
        }
    }
}

// The mask of the values that are kept and not zero.
template <typename Bits>
int64_t mask_of_kept(const Bits* values, const uint8_t* keep, int64_t count, uint8_t* mask, Bits* largest) {
    int64_t ones = 0;
    for (int64_t begin = 0; begin < count; begin += kTile) {
        const int64_t length = count - begin < kTile ? count - begin : kTile;
        const Bits* const tile = values + begin;
        const uint8_t* const keep_tile = keep + begin;
        const auto is_one = [=](int64_t i) __attribute__((always_inline)) {
            return (keep_tile[i] != 0) & (magnitude_of(tile[i]) != 0);
        };
        raise_to_largest(tile, length, largest);
        ones += make_mask(
            length, mask + begin / 8,
            [=](int64_t i) __attribute__((always_inline)) {
#if defined(__AVX512F__)
                return lowest_bits(keep_tile + i) & word_of_lanes_above(tile + i, Bits{0});
#else
                return word_where(i, is_one);
#endif
            },
            is_one);
    }
    return ones;
}
