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
    for (int64_t run = 0; run < runs; ++run) {
        with_constant(length,
                      [&](int64_t size) { run_key_range(values + run * size, size, lowest + run, highest + run); });
    }
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

template <typename Bits>
void add_errors(const Bits* first, const Bits* second, int64_t count, ErrorSums* sums) {
    double squared_error[kLanes] = {}, squared_first[kLanes] = {}, squared_second[kLanes] = {};
    double product[kLanes] = {}, largest[kLanes] = {};
    const auto add = [&](int64_t lane, Bits a_bits, Bits b_bits) {
        const double a = static_cast<double>(Format<Bits>::to_float(a_bits));
        const double b = static_cast<double>(Format<Bits>::to_float(b_bits));
        const double error = a - b;
        const double magnitude = error < 0 ? -error : error;
        squared_error[lane] += error * error;
        squared_first[lane] += a * a;
        squared_second[lane] += b * b;
        product[lane] += a * b;
        largest[lane] = magnitude > largest[lane] ? magnitude : largest[lane];
    };
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        for (int64_t lane = 0; lane < kLanes; ++lane) add(lane, first[i + lane], second[i + lane]);
    }
    for (int64_t lane = 0; i < count; ++i, ++lane) add(lane, first[i], second[i]);
    for (int64_t lane = 0; lane < kLanes; ++lane) {
        sums->squared_error += squared_error[lane];
        sums->squared_first += squared_first[lane];
        sums->squared_second += squared_second[lane];
        sums->product += product[lane];
        sums->largest_error = largest[lane] > sums->largest_error ? largest[lane] : sums->largest_error;
    }
}
