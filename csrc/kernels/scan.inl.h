// One pass over the values for a fact about them: range, non-finite count, error sums.

template <typename Bits>
int64_t count_nonfinite(const Bits* values, int64_t count) {
    int64_t total = 0;
    for (int64_t begin = 0; begin < count; begin += kTile) {
        const int64_t length = count - begin < kTile ? count - begin : kTile;
        Bits found = 0;  // a tile's count fits the value's width, which keeps the loop in full-width lanes
        for (int64_t i = 0; i < length; ++i) {
            const Bits magnitude = values[begin + i] & Format<Bits>::kMagnitude;
            found = static_cast<Bits>(found + (magnitude >= Format<Bits>::kInfinity ? 1 : 0));
        }
        total += found;
    }
    return total;
}

template <typename Bits, typename Key>
inline void run_key_range(const Bits* values, int64_t length, Key* lowest, Key* highest) {
    Key low = *lowest, high = *highest;
    for (int64_t i = 0; i < length; ++i) {
        const Key key = key_from_bits(values[i]);
        low = key < low ? key : low;
        high = key > high ? key : high;
    }
    *lowest = low;
    *highest = high;
}

template <typename Bits, typename Key>
void run_key_ranges(const Bits* values, int64_t runs, int64_t length, Key* lowest, Key* highest) {
    with_constant(
        length, [&](int64_t size) __attribute__((always_inline)) {
            for (int64_t run = 0; run < runs; ++run) {
                run_key_range(values + run * size, size, lowest + run, highest + run);
            }
        });
}

template <typename Bits, typename Key>
void column_key_range(const Bits* values, int64_t rows, int64_t columns, Key* lowest, Key* highest) {
    for (int64_t row = 0; row < rows; ++row) {
        const Bits* line = values + row * columns;
        for (int64_t i = 0; i < columns; ++i) {
            const Key key = key_from_bits(line[i]);
            lowest[i] = key < lowest[i] ? key : lowest[i];
            highest[i] = key > highest[i] ? key : highest[i];
        }
    }
}

// Calls add(a, b) with kLanes pairs at a time, the last of them filled up with zeros.
template <typename Bits, typename Add>
inline void for_each_pair(const Bits* first, const Bits* second, int64_t count, const Add& add) {
    float firsts[kTile], seconds[kTile];
    Doubles a, b;
    for (int64_t begin = 0; begin < count; begin += kTile) {
        const int64_t length = count - begin < kTile ? count - begin : kTile;
        widen(first + begin, length, firsts);
        widen(second + begin, length, seconds);
        int64_t i = 0;
        for (; i + kLanes <= length; i += kLanes) {
            load_doubles(firsts + i, a);
            load_doubles(seconds + i, b);
            add(a, b);
        }
        if (i < length) {
            load_doubles(firsts + i, length - i, a);
            load_doubles(seconds + i, length - i, b);
            add(a, b);
        }
    }
}

template <typename Bits>
void add_errors(const Bits* first, const Bits* second, int64_t count, ErrorSums* sums) {
    Doubles squared_error = {}, squared_first = {}, squared_second = {}, product = {}, largest = {};
    for_each_pair(
        first, second, count, [&](const Doubles& a, const Doubles& b) __attribute__((always_inline)) {
            const Doubles error = a - b;
            const Doubles magnitude = error < 0 ? -error : error;
            squared_error += error * error;
            squared_first += a * a;
            squared_second += b * b;
            product += a * b;
            largest = magnitude > largest ? magnitude : largest;
        });
    for (int64_t lane = 0; lane < kLanes; ++lane) {
        sums->squared_error += squared_error[lane];
        sums->squared_first += squared_first[lane];
        sums->squared_second += squared_second[lane];
        sums->product += product[lane];
        sums->largest_error = largest[lane] > sums->largest_error ? largest[lane] : sums->largest_error;
    }
}

template <typename Bits>
void add_noise(const Bits* first, const Bits* second, int64_t count, Noise* noise) {
    Doubles squared_error = {}, squared_first = {};
    for_each_pair(
        first, second, count, [&](const Doubles& a, const Doubles& b) __attribute__((always_inline)) {
            const Doubles error = a - b;
            squared_error += error * error;
            squared_first += a * a;
        });
    for (int64_t lane = 0; lane < kLanes; ++lane) {
        noise->squared_error += squared_error[lane];
        noise->squared_first += squared_first[lane];
    }
}
