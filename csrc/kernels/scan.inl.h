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

template <typename Bits>
KeyRange key_range(const Bits* values, int64_t count) {
    using Key = typename Format<Bits>::Key;
    Key lowest = key_from_bits(values[0]);
    Key highest = lowest;
    for (int64_t i = 0; i < count; ++i) {
        const Key key = key_from_bits(values[i]);
        lowest = key < lowest ? key : lowest;
        highest = key > highest ? key : highest;
    }
    return {lowest, highest};
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
