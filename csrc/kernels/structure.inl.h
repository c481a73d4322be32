// Structured pruning: the n smallest magnitudes of every m, and blocks by their norm.
//
// A magnitude's rank within its group is a count of comparisons: of those before it that are not larger, and of those
// behind it that are smaller, so that of equal ones the first is the smaller. Nothing depends on a branch.

constexpr int64_t kGroupTile = 2048;

template <typename Bits>
inline Bits magnitude_of(Bits value) {
    return value & Format<Bits>::kMagnitude;
}

// Groups of m rows, `run` values a row. Compares whole rows, so it needs many values a row to be fast.
template <typename Bits>
void keep_of_rows(const Bits* values, int64_t m, int64_t run, int64_t n, uint8_t* keep) {
    constexpr int64_t kWidth = 128;
    for (int64_t begin = 0; begin < run; begin += kWidth) {
        const int64_t width = run - begin < kWidth ? run - begin : kWidth;
        for (int64_t row = 0; row < m; ++row) {
            const Bits* const own = values + row * run + begin;
            Bits rank[kWidth] = {};
            for (int64_t other = 0; other < row; ++other) {
                const Bits* const before = values + other * run + begin;
                for (int64_t i = 0; i < width; ++i) {
                    rank[i] = static_cast<Bits>(rank[i] + (magnitude_of(before[i]) <= magnitude_of(own[i])));
                }
            }
            for (int64_t other = row + 1; other < m; ++other) {
                const Bits* const behind = values + other * run + begin;
                for (int64_t i = 0; i < width; ++i) {
                    rank[i] = static_cast<Bits>(rank[i] + (magnitude_of(behind[i]) < magnitude_of(own[i])));
                }
            }
            for (int64_t i = 0; i < width; ++i) keep[row * run + begin + i] = rank[i] >= n ? 1 : 0;
        }
    }
}

// The same for rows of few values: all values of as many groups as fit a tile are compared with those `distance` rows
// away, and what belongs to another group does not count.
template <typename Bits>
void keep_of_groups(const Bits* values, int64_t groups, int64_t m, int64_t run, int64_t n, uint8_t* keep) {
    constexpr int64_t kWidth = 128;
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
            for (int64_t i = 0; i < width; ++i) keep[first * size + begin + i] = rank[i] >= n ? 1 : 0;
        }
    }
}

template <typename Bits>
void keep_largest(const Bits* values, int64_t groups, int64_t m, int64_t run, int64_t n, uint8_t* keep) {
    const int64_t size = m * run;
    if (run < 64 && size <= kGroupTile) return keep_of_groups(values, groups, m, run, n, keep);
    for (int64_t i = 0; i < groups; ++i) keep_of_rows(values + i * size, m, run, n, keep + i * size);
}

// Adds, for each of a row's `run` places, the squares of the `block_size` rows of a block, in their order.
template <typename Bits>
void sum_block_squares(const Bits* values, int64_t blocks, int64_t block_size, int64_t run, double* sums) {
    float single[kTile];
    const int64_t size = block_size * run;
    memset(sums, 0, static_cast<size_t>(blocks * run) * sizeof *sums);
    const auto add_row = [](const float* row, int64_t count, double* row_sums) {
        for (int64_t i = 0; i < count; ++i) row_sums[i] += static_cast<double>(row[i]) * static_cast<double>(row[i]);
    };
    const int64_t per_tile = kTile / size;
    for (int64_t first = 0; per_tile > 0 && first < blocks; first += per_tile) {
        const int64_t count = blocks - first < per_tile ? blocks - first : per_tile;
        widen(values + first * size, count * size, single);
        if (run == 1) {  // the same additions without a loop over one place
            for (int64_t i = 0; i < count * size; i += size) {
                double sum = 0;
                for (int64_t row = 0; row < size; ++row) {
                    sum += static_cast<double>(single[i + row]) * static_cast<double>(single[i + row]);
                }
                *sums++ = sum;
            }
            continue;
        }
        for (int64_t i = 0; i < count; ++i) {
            for (int64_t row = 0; row < block_size; ++row) {
                add_row(single + i * size + row * run, run, sums + (first + i) * run);
            }
        }
    }
    for (int64_t i = 0; per_tile == 0 && i < blocks; ++i) {
        for (int64_t row = 0; row < block_size; ++row) {
            for (int64_t begin = 0; begin < run; begin += kTile) {
                const int64_t count = run - begin < kTile ? run - begin : kTile;
                widen(values + (i * block_size + row) * run + begin, count, single);
                add_row(single, count, sums + i * run + begin);
            }
        }
    }
}

// keep is 1 in the places, of all rows of a block, whose sum is above the limit.
void keep_blocks_above(const double* sums, int64_t blocks, int64_t block_size, int64_t run, double limit,
                       uint8_t* keep) {
    for (int64_t i = 0; i < blocks; ++i) {
        if (run == 1) {  // the same without a loop over one place
            const uint8_t above = sums[i] > limit ? 1 : 0;
            for (int64_t row = 0; row < block_size; ++row) *keep++ = above;
            continue;
        }
        for (int64_t row = 0; row < block_size; ++row) {
            for (int64_t place = 0; place < run; ++place) *keep++ = sums[i * run + place] > limit ? 1 : 0;
        }
    }
}

// The mask of the values that are kept and not zero.
template <typename Bits>
int64_t mask_of_kept(const Bits* values, const uint8_t* keep, int64_t count, uint8_t* mask) {
    return make_mask(
        count, mask, [=](int64_t i) __attribute__((always_inline)) {
            return (keep[i] != 0) & (magnitude_of(values[i]) != 0);
        });
}
