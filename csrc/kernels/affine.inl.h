// Values to integers with a scale and a zero point, and back.

// Adding and subtracting 1.5 * 2^23 rounds a float below 2^22 to the nearest integer, ties to even, in two additions on
// every machine (SSE2 has no rounding instruction). The same with 1.5 * 2^52 for double.
inline float round_to_even(float value) { return (value + 12582912.0f) - 12582912.0f; }
inline double round_to_even(double value) { return (value + 6755399441055744.0) - 6755399441055744.0; }

// The code less the zero point.
inline float centred_code(float value, Affine affine, CodeRange range) {
    // Clipping before rounding is the same as after it, since the bounds are integers, and keeps the value small.
    const float lowest = range.lowest - affine.zero_point;
    const float highest = range.highest - affine.zero_point;
    float quotient = value / affine.scale;
    quotient = quotient < lowest ? lowest : quotient;
    quotient = quotient > highest ? highest : quotient;
    return round_to_even(quotient);
}

inline uint8_t quantize_value(float value, Affine affine, CodeRange range) {
    return static_cast<uint8_t>(static_cast<int32_t>(centred_code(value, affine, range) + affine.zero_point));
}

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

template <typename Bits>
void quantize_runs(const Bits* values, int64_t runs, int64_t length, const Affine* affines, CodeRange range,
                   uint8_t* codes) {
    float tile[kTile];
    for_each_tile(runs, length, [&](int64_t offset, int64_t first, int64_t count, int64_t part) {
        widen(values + offset, count * part, tile);
        for (int64_t run = 0; run < count; ++run) {
            const Affine affine = affines[first + run];
            const float* const from = tile + run * part;
            uint8_t* const to = codes + offset + run * part;
            with_constant(part, [&](int64_t size) {
                for (int64_t i = 0; i < size; ++i) to[i] = quantize_value(from[i], affine, range);
            });
        }
    });
}

template <typename Bits>
void quantize_columns(const Bits* values, int64_t rows, int64_t columns, const Affine* affines, CodeRange range,
                      uint8_t* codes) {
    float tile[kTile];
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t begin = 0; begin < columns; begin += kTile) {
            const int64_t length = columns - begin < kTile ? columns - begin : kTile;
            const int64_t offset = row * columns + begin;
            widen(values + offset, length, tile);
            for (int64_t i = 0; i < length; ++i) {
                codes[offset + i] = quantize_value(tile[i], affines[begin + i], range);
            }
        }
    }
}

inline float dequantize_value(uint8_t code, Affine affine, int sign) {
    const int32_t integer = (static_cast<int32_t>(code) ^ sign) - sign;
    return (static_cast<float>(integer) - affine.zero_point) * affine.scale;
}

template <typename Bits>
void dequantize_runs(const uint8_t* codes, int64_t runs, int64_t length, const Affine* affines, int sign,
                     Bits* values) {
    float tile[kTile];
    for_each_tile(runs, length, [&](int64_t offset, int64_t first, int64_t count, int64_t part) {
        for (int64_t run = 0; run < count; ++run) {
            const Affine affine = affines[first + run];
            const uint8_t* const from = codes + offset + run * part;
            float* const to = tile + run * part;
            with_constant(part, [&](int64_t size) {
                for (int64_t i = 0; i < size; ++i) to[i] = dequantize_value(from[i], affine, sign);
            });
        }
        narrow(tile, count * part, values + offset);
    });
}

template <typename Bits>
void dequantize_columns(const uint8_t* codes, int64_t rows, int64_t columns, const Affine* affines, int sign,
                        Bits* values) {
    float tile[kTile];
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t begin = 0; begin < columns; begin += kTile) {
            const int64_t length = columns - begin < kTile ? columns - begin : kTile;
            const int64_t offset = row * columns + begin;
            for (int64_t i = 0; i < length; ++i) {
                tile[i] = dequantize_value(codes[offset + i], affines[begin + i], sign);
            }
            narrow(tile, length, values + offset);
        }
    }
}

template <typename Bits>
void divide(const Bits* values, int64_t count, float divisor, Bits* quotients) {
    float tile[kTile];
    for (int64_t begin = 0; begin < count; begin += kTile) {
        const int64_t length = count - begin < kTile ? count - begin : kTile;
        widen(values + begin, length, tile);
        for (int64_t i = 0; i < length; ++i) tile[i] /= divisor;
        narrow(tile, length, quotients + begin);
    }
}

// Branch-free, so that it vectorises; algo/quantize.cpp says what it computes, and does again what is `unusual`.
template <typename Bits, typename Key>
int64_t choose_affines(const Key* lowest, const Key* highest, int64_t count, AffineRule rule, Affine* affines) {
    const double codes = static_cast<double>(rule.range.highest) - static_cast<double>(rule.range.lowest);
    const double least = static_cast<double>(rule.range.lowest), most = static_cast<double>(rule.range.highest);
    int64_t unusual = 0;
    for (int64_t i = 0; i < count; ++i) {
        double low = static_cast<double>(Format<Bits>::to_float(bits_from_key<Bits>(lowest[i])));
        double high = static_cast<double>(Format<Bits>::to_float(bits_from_key<Bits>(highest[i])));
        const double magnitude = -low > high ? -low : high;
        low = rule.symmetric ? -magnitude : (low < 0.0 ? low : 0.0);
        high = rule.symmetric ? magnitude : (high > 0.0 ? high : 0.0);
        const double span = high - low;
        double zero_point = round_to_even((least * high - most * low) / span);
        zero_point = zero_point < least ? least : zero_point;
        zero_point = zero_point > most ? most : zero_point;
        const float rounded = Format<Bits>::to_float(Format<Bits>::from_float(static_cast<float>(span)));
        const float quotient = static_cast<float>(static_cast<double>(rounded) / codes);
        const float scale = Format<Bits>::to_float(Format<Bits>::from_float(quotient));
        const bool empty = span == 0.0;
        affines[i].scale = empty ? 1.0f : scale;
        affines[i].zero_point = rule.symmetric ? rule.zero_point : (empty ? 0.0f : static_cast<float>(zero_point));
        unusual += (!empty && (scale < rule.usual_lowest || !(rounded < rule.usual_highest))) ? 1 : 0;
    }
    return unusual;
}

// The exact error of what a tensor decodes to, and what the best scale for these codes is made from.
template <typename Bits>
void add_fit(const Bits* values, int64_t count, Affine affine, CodeRange range, FitSums* sums) {
    double error[kLanes] = {}, product[kLanes] = {}, square[kLanes] = {};
    float exact[kTile], centred[kTile], decoded[kTile];
    Bits rounded[kTile];
    for (int64_t begin = 0; begin < count; begin += kTile) {
        const int64_t length = count - begin < kTile ? count - begin : kTile;
        widen(values + begin, length, exact);
        for (int64_t i = 0; i < length; ++i) {
            centred[i] = centred_code(exact[i], affine, range);
            decoded[i] = centred[i] * affine.scale;
        }
        narrow(decoded, length, rounded);
        widen(rounded, length, decoded);
        const auto add = [&](int64_t lane, int64_t i) {
            const double value = static_cast<double>(exact[i]), code = static_cast<double>(centred[i]);
            const double difference = value - static_cast<double>(decoded[i]);
            error[lane] += difference * difference;
            product[lane] += value * code;
            square[lane] += code * code;
        };
        int64_t i = 0;
        for (; i + kLanes <= length; i += kLanes) {
            for (int64_t lane = 0; lane < kLanes; ++lane) add(lane, i + lane);
        }
        for (; i < length; ++i) add(i % kLanes, i);
    }
    for (int64_t lane = 0; lane < kLanes; ++lane) {
        sums->error += error[lane];
        sums->moments.product += product[lane];
        sums->moments.square += square[lane];
    }
}

inline void add_tile_moments(const float* values, int64_t count, Affine affine, CodeRange range, Moments* moments) {
    double product[kLanes] = {}, square[kLanes] = {};
    float centred[kTile];
    const float reciprocal = 1.0f / affine.scale;
    const float lowest = range.lowest - affine.zero_point, highest = range.highest - affine.zero_point;
    for (int64_t i = 0; i < count; ++i) {
        float quotient = values[i] * reciprocal;
        quotient = quotient < lowest ? lowest : quotient;
        quotient = quotient > highest ? highest : quotient;
        centred[i] = round_to_even(quotient);
    }
    const auto add = [&](int64_t lane, int64_t i) {
        const double code = static_cast<double>(centred[i]);
        product[lane] += static_cast<double>(values[i]) * code;
        square[lane] += code * code;
    };
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        for (int64_t lane = 0; lane < kLanes; ++lane) add(lane, i + lane);
    }
    for (; i < count; ++i) add(i % kLanes, i);
    for (int64_t lane = 0; lane < kLanes; ++lane) {
        moments->product += product[lane];
        moments->square += square[lane];
    }
}

template <typename Bits>
void add_moments(const Bits* values, int64_t count, const Affine* affines, int affine_count, CodeRange range,
                 Moments* moments) {
    float tile[kTile];
    for (int64_t begin = 0; begin < count; begin += kTile) {
        const int64_t length = count - begin < kTile ? count - begin : kTile;
        widen(values + begin, length, tile);
        for (int j = 0; j < affine_count; ++j) {
            add_tile_moments(tile, length, affines[j], range, moments + j);
        }
    }
}
