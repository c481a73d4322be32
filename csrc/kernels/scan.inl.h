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

// The range from each of `count` places on, of twice the width: that of the place and of the one `shift` behind.
template <typename Key>
inline void widen_ranges(const Key* __restrict low, const Key* __restrict high, int64_t count, int64_t shift,
                         Key* __restrict wider_low, Key* __restrict wider_high) {
    for (int64_t i = 0; i < count; ++i) {
        wider_low[i] = low[i] < low[i + shift] ? low[i] : low[i + shift];
        wider_high[i] = high[i] > high[i + shift] ? high[i] : high[i + shift];
    }
}

// Runs of a few values, many at a time: ranges from every place on, of 1, 2, 4 ... values, two of which make a run's.
template <typename Bits, typename Key>
inline void short_run_key_ranges(const Bits* values, int64_t runs, int64_t length, Key* lowest, Key* highest) {
    Key keys[kTile], low[2][kTile], high[2][kTile];
    const int64_t per_tile = kTile / length;
    for (int64_t first = 0; first < runs; first += per_tile) {
        const int64_t together = runs - first < per_tile ? runs - first : per_tile;
        int64_t count = together * length, width = 1;
        for (int64_t i = 0; i < count; ++i) keys[i] = key_from_bits(values[first * length + i]);
        const Key *least = keys, *most = keys;
        for (int turn = 0; 2 * width <= length; turn ^= 1, width *= 2) {
            count -= width;
            widen_ranges(least, most, count, width, low[turn], high[turn]);
            least = low[turn];
            most = high[turn];
        }
        const int64_t rest = length - width;
        const auto merge = [&](int64_t size) __attribute__((always_inline)) {
            for (int64_t run = 0; run < together; ++run) {
                const Key run_low =
                    least[run * size] < least[run * size + rest] ? least[run * size] : least[run * size + rest];
                const Key run_high =
                    most[run * size] > most[run * size + rest] ? most[run * size] : most[run * size + rest];
                lowest[first + run] = run_low < lowest[first + run] ? run_low : lowest[first + run];
                highest[first + run] = run_high > highest[first + run] ? run_high : highest[first + run];
            }
        };
        if (length == 2) {
            merge(2);
        } else if (length == 3) {
            merge(3);
        } else if (length == 4) {
            merge(4);
        } else if (length == 8) {
            merge(8);
        } else {
            merge(length);
        }
    }
}

template <typename Bits, typename Key>
void run_key_ranges(const Bits* values, int64_t runs, int64_t length, Key* lowest, Key* highest) {
    if (length < 16) return short_run_key_ranges(values, runs, length, lowest, highest);
    with_constant(
        length, [&](int64_t size) __attribute__((always_inline)) {
            for (int64_t run = 0; run < runs; ++run) {
                run_key_range(values + run * size, size, lowest + run, highest + run);
            }
        });
}

template <typename Bits, typename Key>
inline void merge_row(const Bits* values, int64_t columns, Key* lowest, Key* highest) {
    for (int64_t i = 0; i < columns; ++i) {
        const Key key = key_from_bits(values[i]);
        lowest[i] = key < lowest[i] ? key : lowest[i];
        highest[i] = key > highest[i] ? key : highest[i];
    }
}

template <typename Bits, typename Key>
void column_key_range(const Bits* values, int64_t rows, int64_t columns, Key* lowest, Key* highest) {
    const int64_t together = rows_side_by_side(rows, columns), wide = together * columns;
    int64_t row = 0;
    if (together > 1) {
        Key low[kSpread], high[kSpread];
        memcpy(low, lowest, static_cast<size_t>(columns) * sizeof *low);
        memcpy(high, highest, static_cast<size_t>(columns) * sizeof *high);
        repeat(columns, wide, low);
        repeat(columns, wide, high);
        for (; row + together <= rows; row += together) merge_row(values + row * columns, wide, low, high);
        for (int64_t i = 0; i < wide; ++i) {
            Key &least = lowest[i % columns], &most = highest[i % columns];
            least = low[i] < least ? low[i] : least;
            most = high[i] > most ? high[i] : most;
        }
    }
    for (; row < rows; ++row) merge_row(values + row * columns, columns, lowest, highest);
}

// Calls add(a, b) with kLanes pairs at a time, the last of them filled up with zeros. Not a function of its own, for
// which sums would have to be in memory.
template <typename Bits, typename Add>
inline __attribute__((always_inline)) void for_each_pair(const Bits* first, const Bits* second, int64_t count,
                                                         const Add& add) {
    float firsts[kTile], seconds[kTile];
    Doubles a, b;
    for (int64_t begin = 0; begin < count; begin += kTile) {
        const int64_t length = count - begin < kTile ? count - begin : kTile;
        widen(first + begin, length, firsts);
        widen(second + begin, length, seconds);
        int64_t i = 0;
        for (; i + kLanes <= length; i += kLanes) {
            load(firsts + i, a);
            load(seconds + i, b);
            add(a, b);
        }
        if (i < length) {
            load(firsts + i, length - i, a);
            load(seconds + i, length - i, b);
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
            squared_error = squared_error + error * error;
            squared_first = squared_first + a * a;
            squared_second = squared_second + b * b;
            product = product + a * b;
            largest = greater(greater(error, b - a), largest);
        });
    sums->squared_error = add_lanes(squared_error, sums->squared_error);
    sums->squared_first = add_lanes(squared_first, sums->squared_first);
    sums->squared_second = add_lanes(squared_second, sums->squared_second);
    sums->product = add_lanes(product, sums->product);
    sums->largest_error = largest_of(largest, sums->largest_error);
}

template <typename Bits>
void add_noise(const Bits* first, const Bits* second, int64_t count, Noise* noise) {
    Doubles squared_error = {}, squared_first = {};
    for_each_pair(
        first, second, count, [&](const Doubles& a, const Doubles& b) __attribute__((always_inline)) {
            const Doubles error = a - b;
            squared_error = squared_error + error * error;
            squared_first = squared_first + a * a;
        });
    noise->squared_error = add_lanes(squared_error, noise->squared_error);
    noise->squared_first = add_lanes(squared_first, noise->squared_first);
}
