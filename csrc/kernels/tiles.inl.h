// Loops over tiles of values, and parameters with one number per value.

// Calls body(begin, length, run, length of run) for tiles of whole runs, or for parts of one run longer than a tile.
template <typename Body>
inline void for_each_tile(int64_t runs, int64_t length, const Body& body) {
    const int64_t runs_per_tile = length < kTile ? kTile / length : 1;
    for (int64_t run = 0; run < runs; run += runs_per_tile) {
        const int64_t count = runs - run < runs_per_tile ? runs - run : runs_per_tile;
        for (int64_t begin = 0; begin < length; begin += kTile) {
            const int64_t part = length - begin < kTile ? length - begin : kTile;
            body(run * length + begin, run, count, part);
        }
    }
}

// Short rows and runs are taken many at a time, with one parameter per value.
constexpr int64_t kShortRun = 32;
constexpr int64_t kSpread = 256;  // columns that short rows side by side have

// How many rows of a matrix to take as one.
inline int64_t rows_side_by_side(int64_t rows, int64_t columns) {
    const int64_t most = columns < kSpread ? kSpread / columns : 1;
    return rows < most ? rows : most;
}

// Repeats the first `length` numbers until there are `count`.
template <typename Number>
inline void repeat(int64_t length, int64_t count, Number* numbers) {
    for (int64_t filled = length; filled < count; filled *= 2) {
        const int64_t copied = count - filled < filled ? count - filled : filled;
        memcpy(numbers + filled, numbers, static_cast<size_t>(copied) * sizeof *numbers);
    }
}

// Scales, or what values are divided by, and zero points, one per value.
struct ValueAffines {
    float factor[kTile + kShortRun], zero_point[kTile + kShortRun];  // spreading writes beyond the last run

    // Those of `runs` runs of `length` values.
    template <typename Factor>
    void spread(const Affine* affines, int64_t runs, int64_t length, const Factor& factor_of) {
        float factors[kTile], zero_points[kTile];
        for (int64_t run = 0; run < runs; ++run) {
            factors[run] = factor_of(affines[run].scale);
            zero_points[run] = affines[run].zero_point;
        }
        if (length <= 8) {
            write_runs<8>(factors, zero_points, runs, length);
        } else if (length <= 16) {
            write_runs<16>(factors, zero_points, runs, length);
        } else {
            write_runs<kShortRun>(factors, zero_points, runs, length);
        }
    }

    // Those of `columns` columns, of so many rows side by side.
    template <typename Factor>
    void repeat_columns(const Affine* affines, int64_t columns, int64_t rows, const Factor& factor_of) {
        for (int64_t i = 0; i < columns; ++i) {
            factor[i] = factor_of(affines[i].scale);
            zero_point[i] = affines[i].zero_point;
        }
        repeat(columns, columns * rows, factor);
        repeat(columns, columns * rows, zero_point);
    }

private:
    // Writes `size` numbers a run, of which the next run covers those that are too many.
    template <int64_t size>
    inline void write_runs(const float* factors, const float* zero_points, int64_t runs, int64_t length) {
        for (int64_t run = 0; run < runs; ++run) {
            store(broadcast<float, size>(factors[run]), factor + run * length);
            store(broadcast<float, size>(zero_points[run]), zero_point + run * length);
        }
    }
};

// Calls body(offset, length) for the values of a matrix that have the parameters loaded by load(first column, columns,
// rows side by side), at most kTile at a time.
template <typename Load, typename Body>
inline void for_each_row_tile(int64_t rows, int64_t columns, const Load& load, const Body& body) {
    const int64_t together = rows_side_by_side(rows, columns);
    for (int64_t begin = 0; begin < columns; begin += kTile) {
        const int64_t length = columns - begin < kTile ? columns - begin : kTile;
        load(begin, length, together);
        for (int64_t row = 0; row < rows; row += together) {
            body(row * columns + begin, length * (rows - row < together ? rows - row : together));
        }
    }
}
