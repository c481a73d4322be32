// Values times or divided by a number, or by one for each column.

// Rounds to the format.
template <typename Bits>
inline void round_to(float* singles, int64_t count) {
    Bits bits[kTile];
    narrow(singles, count, bits);
    widen(bits, count, singles);
}

// What an operation makes of each value as a float, rounded once.
template <typename Bits, typename Operation>
inline void map_singles(const Bits* values, int64_t count, const Operation& operation, Bits* results) {
    float tile[kTile];
    for (int64_t begin = 0; begin < count; begin += kTile) {
        const int64_t length = count - begin < kTile ? count - begin : kTile;
        widen(values + begin, length, tile);
        for (int64_t i = 0; i < length; ++i) tile[i] = operation(tile[i]);
        narrow(tile, length, results + begin);
    }
}

template <typename Bits>
void divide(const Bits* values, int64_t count, float divisor, Bits* quotients) {
    map_singles(values, count, [divisor](float value) { return value / divisor; }, quotients);
}

template <typename Bits>
void multiply(const Bits* values, int64_t count, float factor, Bits* products) {
    map_singles(values, count, [factor](float value) { return value * factor; }, products);
}

// What an operation makes of each value of [rows, columns] and the number of its column, rounded once.
template <typename Bits, typename Operation>
inline void map_columns(const Bits* values, int64_t rows, int64_t columns, const float* numbers,
                        const Operation& operation, Bits* results) {
    float tile[kTile], repeated[kTile];
    int64_t width = columns;
    if (columns <= kTile / 2) {  // so many short rows as fit are taken as one
        for (width = 0; width + columns <= kTile; width += columns) {
            memcpy(repeated + width, numbers, static_cast<size_t>(columns) * sizeof *numbers);
        }
        numbers = repeated;
    }
    for (int64_t begin = 0, count = rows * columns; begin < count;) {
        const int64_t column = begin % width, until = width - column < kTile ? width - column : kTile;
        const int64_t length = count - begin < until ? count - begin : until;
        widen(values + begin, length, tile);
        for (int64_t i = 0; i < length; ++i) tile[i] = operation(tile[i], numbers[column + i]);
        narrow(tile, length, results + begin);
        begin += length;
    }
}

template <typename Bits>
void divide_columns(const Bits* values, int64_t rows, int64_t columns, const float* divisors, Bits* quotients) {
    map_columns(values, rows, columns, divisors, [](float value, float divisor) { return value / divisor; }, quotients);
}

template <typename Bits>
void multiply_columns(const Bits* values, int64_t rows, int64_t columns, const float* factors, Bits* products) {
    map_columns(values, rows, columns, factors, [](float value, float factor) { return value * factor; }, products);
}
