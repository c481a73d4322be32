// Values to integers with a scale and a zero point, and back.

// What values are divided by, prepared for many of them: here the scale itself.
template <typename Bits>
struct Divisor {
    static constexpr float kSettling = 0.0f;
    static float of(float scale) { return scale; }
    static float divide(float value, float divisor) { return value / divisor; }
};

// A product with the reciprocal is off by less than 2^-15 where codes have 8 bits. Of two halves, the quotient is
// either half-way between two integers or, counting 11 bits each, at least 2^-12 away from there: rounding to multiples
// of 2^-12 first, by adding 1.5 * 2^11, restores the former and keeps the latter on its side.
template <>
struct Divisor<uint16_t> {
    static constexpr float kSettling = 3072.0f;
    static float of(float scale) { return 1.0f / scale; }
    static float divide(float value, float divisor) { return value * divisor; }
};

// An Affine and the range of codes, as the loops need them: bounds of codes less the zero point.
template <typename Bits>
struct Quantizing {
    float divisor, lowest, highest;
    int32_t zero_point;

    Quantizing(Affine affine, CodeRange range)
        : divisor(Divisor<Bits>::of(affine.scale)),
          lowest(range.lowest - affine.zero_point),
          highest(range.highest - affine.zero_point),
          zero_point(static_cast<int32_t>(affine.zero_point)) {}
};

// The code less the zero point, plus kRounding. Clipping before rounding is the same as after it, since the bounds are
// integers, and keeps the value small.
template <typename Bits>
inline float rounded_code(float value, float divisor, float lowest, float highest) {
    float quotient = Divisor<Bits>::divide(value, divisor);
    quotient = quotient < lowest ? lowest : quotient;
    quotient = quotient > highest ? highest : quotient;
    return (quotient + Divisor<Bits>::kSettling) + (kRounding - Divisor<Bits>::kSettling);
}

// The lowest bits of a float that was rounded so are the integer's, in two's complement.
template <typename Bits>
inline uint8_t code_of(float value, float divisor, float lowest, float highest, int32_t zero_point) {
    const uint32_t code = bits_from_float(rounded_code<Bits>(value, divisor, lowest, highest));
    return static_cast<uint8_t>(code + static_cast<uint32_t>(zero_point));
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

#include "kernels/floats.inl.h"

// At most kTile values.
template <typename Bits>
inline void quantize_values(const Bits* values, int64_t count, const ValueAffines& affines, CodeRange range,
                            uint8_t* codes) {
    float tile[kTile];
    widen(values, count, tile);
    for (int64_t i = 0; i < count; ++i) {
        const float zero_point = affines.zero_point[i];
        codes[i] = code_of<Bits>(tile[i], affines.factor[i], range.lowest - zero_point, range.highest - zero_point,
                                 static_cast<int32_t>(zero_point));
    }
}

template <typename Bits>
void quantize_runs(const Bits* values, int64_t runs, int64_t length, const Affine* affines, CodeRange range,
                   uint8_t* codes) {
    if (range.floats != nullptr) return quantize_float_runs(values, runs, length, affines, *range.floats, codes);
    if (length < kShortRun) {
        ValueAffines of_values;
        return for_each_tile(runs, length, [&](int64_t offset, int64_t first, int64_t count, int64_t part) {
            of_values.spread(affines + first, count, part, [](float scale) { return Divisor<Bits>::of(scale); });
            quantize_values(values + offset, count * part, of_values, range, codes + offset);
        });
    }
    float tile[kTile];
    for_each_tile(runs, length, [&](int64_t offset, int64_t first, int64_t count, int64_t part) {
        widen(values + offset, count * part, tile);
        with_constant(
            part, [&](int64_t size) __attribute__((always_inline)) {
                for (int64_t run = 0; run < count; ++run) {
                    const Quantizing<Bits> to_code(affines[first + run], range);
                    const float* const from = tile + run * size;
                    uint8_t* const to = codes + offset + run * size;
                    for (int64_t i = 0; i < size; ++i) {
                        to[i] = code_of<Bits>(from[i], to_code.divisor, to_code.lowest, to_code.highest,
                                              to_code.zero_point);
                    }
                }
            });
    });
}

template <typename Bits>
void quantize_columns(const Bits* values, int64_t rows, int64_t columns, const Affine* affines, CodeRange range,
                      uint8_t* codes) {
    if (range.floats != nullptr) return quantize_float_columns(values, rows, columns, affines, *range.floats, codes);
    ValueAffines of_values;
    for_each_row_tile(
        rows, columns,
        [&](int64_t first, int64_t width, int64_t together) {
            of_values.repeat_columns(affines + first, width, together,
                                     [](float scale) { return Divisor<Bits>::of(scale); });
        },
        [&](int64_t offset, int64_t count) {
            quantize_values(values + offset, count, of_values, range, codes + offset);
        });
}

inline float dequantize_value(uint8_t code, float scale, float zero_point, int sign) {
    const int32_t integer = (static_cast<int32_t>(code) ^ sign) - sign;
    return (static_cast<float>(integer) - zero_point) * scale;
}

// At most kTile values.
template <typename Bits>
inline void dequantize_values(const uint8_t* codes, int64_t count, const ValueAffines& affines, int sign,
                              Bits* values) {
    float tile[kTile];
    for (int64_t i = 0; i < count; ++i) {
        tile[i] = dequantize_value(codes[i], affines.factor[i], affines.zero_point[i], sign);
    }
    narrow(tile, count, values);
}

template <typename Bits>
void dequantize_runs(const uint8_t* codes, int64_t runs, int64_t length, const Affine* affines, StoredCode stored,
                     Bits* values) {
    if (stored.floats != nullptr) {
        return dequantize_float_runs(codes, runs, length, affines, *stored.floats, values);
    }
    const int sign = stored.sign;
    if (length < kShortRun) {
        ValueAffines of_values;
        return for_each_tile(runs, length, [&](int64_t offset, int64_t first, int64_t count, int64_t part) {
            of_values.spread(affines + first, count, part, [](float scale) { return scale; });
            dequantize_values(codes + offset, count * part, of_values, sign, values + offset);
        });
    }
    float tile[kTile];
    for_each_tile(runs, length, [&](int64_t offset, int64_t first, int64_t count, int64_t part) {
        for (int64_t run = 0; run < count; ++run) {
            const Affine affine = affines[first + run];
            const uint8_t* const from = codes + offset + run * part;
            float* const to = tile + run * part;
            with_constant(part, [&](int64_t size) {
                for (int64_t i = 0; i < size; ++i) {
                    to[i] = dequantize_value(from[i], affine.scale, affine.zero_point, sign);
                }
            });
        }
        narrow(tile, count * part, values + offset);
    });
}

template <typename Bits>
void dequantize_columns(const uint8_t* codes, int64_t rows, int64_t columns, const Affine* affines, StoredCode stored,
                        Bits* values) {
    if (stored.floats != nullptr) {
        return dequantize_float_columns(codes, rows, columns, affines, *stored.floats, values);
    }
    const int sign = stored.sign;
    ValueAffines of_values;
    for_each_row_tile(
        rows, columns,
        [&](int64_t first, int64_t width, int64_t together) {
            of_values.repeat_columns(affines + first, width, together, [](float scale) { return scale; });
        },
        [&](int64_t offset, int64_t count) {
            dequantize_values(codes + offset, count, of_values, sign, values + offset);
        });
}

template <typename Bits>
void load_affines(const Bits* scales, const uint8_t* zero_points, int64_t count, bool is_signed, Affine* affines) {
    float scale[kTile];
    const int32_t sign = is_signed ? 0x80 : 0;
    for (int64_t begin = 0; begin < count; begin += kTile) {
        const int64_t length = count - begin < kTile ? count - begin : kTile;
        widen(scales + begin, length, scale);
        if (zero_points == nullptr) {
            for (int64_t i = 0; i < length; ++i) affines[begin + i] = {scale[i], 0.0f};
        } else {
            for (int64_t i = 0; i < length; ++i) {
                const int32_t zero_point = (static_cast<int32_t>(zero_points[begin + i]) ^ sign) - sign;
                affines[begin + i] = {scale[i], static_cast<float>(zero_point)};
            }
        }
    }
}

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

template <typename Bits, typename Key>
inline void values_of_keys(const Key* keys, int64_t count, float* singles) {
    Bits bits[kTile];
    for (int64_t i = 0; i < count; ++i) bits[i] = bits_from_key<Bits>(keys[i]);
    widen(bits, count, singles);
}

// Branch-free and in short loops, so that they vectorize; algo/affine/quantize.cpp says what it computes, and does
// again what is `unusual`.
template <typename Bits, typename Key>
int64_t choose_affines(const Key* lowest, const Key* highest, int64_t count, AffineRule rule, Affine* affines,
                       Bits* scales, uint8_t* zero_points) {
    const double least = static_cast<double>(rule.range.lowest), most = static_cast<double>(rule.range.highest);
    const double codes = most - least;
    int64_t unusual = 0;
    float low[kTile], high[kTile], span[kTile], scale[kTile], zero_point[kTile];
    for (int64_t begin = 0; begin < count; begin += kTile) {
        const int64_t length = count - begin < kTile ? count - begin : kTile;
        values_of_keys<Bits>(lowest + begin, length, low);
        values_of_keys<Bits>(highest + begin, length, high);
        if (rule.symmetric) {
            for (int64_t i = 0; i < length; ++i) {
                const float magnitude = -low[i] > high[i] ? -low[i] : high[i];
                span[i] = magnitude + magnitude;
                zero_point[i] = rule.zero_point;
            }
        } else {
            for (int64_t i = 0; i < length; ++i) {
                const double from = static_cast<double>(low[i] < 0.0f ? low[i] : 0.0f);
                const double to = static_cast<double>(high[i] > 0.0f ? high[i] : 0.0f);
                double code = round_to_even((least * to - most * from) / (to - from));
                code = code < least ? least : code;
                code = code > most ? most : code;
                span[i] = static_cast<float>(to - from);
                zero_point[i] = span[i] == 0.0f ? 0.0f : static_cast<float>(code);
            }
        }
        for (int64_t i = 0; i < length; ++i) low[i] = span[i];
        round_to<Bits>(span, length);
        for (int64_t i = 0; i < length; ++i) scale[i] = static_cast<float>(static_cast<double>(span[i]) / codes);
        for (int64_t i = 0; i < length; ++i) scale[i] = low[i] == 0.0f ? 1.0f : scale[i];
        narrow(scale, length, scales + begin);
        widen(scales + begin, length, scale);
        int32_t unusual_of_tile = 0;
        for (int64_t i = 0; i < length; ++i) affines[begin + i] = {scale[i], zero_point[i]};
        for (int64_t i = 0; i < length; ++i) {
            zero_points[begin + i] = static_cast<uint8_t>(static_cast<int32_t>(zero_point[i]));
        }
        for (int64_t i = 0; i < length; ++i) {
            unusual_of_tile += ((scale[i] < rule.usual_lowest) | !(span[i] < rule.usual_highest)) ? 1 : 0;
        }
        unusual += unusual_of_tile;
    }
    return unusual;
}

// The exact error of what a tensor decodes to, and what the best scale for these codes is made from.
template <bool kWeighted, typename Bits, typename Centred>
inline void add_fit_of(const Bits* values, const float* importance, int64_t count, float scale, const Centred& of_value,
                       FitSums* sums) {
    Doubles error = {}, product = {}, square = {};
    float exact[kTile], centred[kTile], decoded[kTile];
    Doubles value, code, result, weight;
    const auto add = [&](int64_t i, int64_t part, const float* weights) __attribute__((always_inline)) {
        load(exact + i, part, value);
        load(centred + i, part, code);
        load(decoded + i, part, result);
        const Doubles difference = value - result;
        if (kWeighted) {
            load(weights + i, part, weight);
            error = error + weight * difference * difference;
            product = product + weight * value * code;
            square = square + weight * code * code;
        } else {
            error = error + difference * difference;
            product = product + value * code;
            square = square + code * code;
        }
    };
    for (int64_t begin = 0; begin < count; begin += kTile) {
        const int64_t length = count - begin < kTile ? count - begin : kTile;
        widen(values + begin, length, exact);
        for (int64_t i = 0; i < length; ++i) {
            centred[i] = of_value(exact[i]);
            decoded[i] = centred[i] * scale;
        }
        round_to<Bits>(decoded, length);
        const float* const weights = kWeighted ? importance + begin : nullptr;
        int64_t i = 0;
        for (; i + kLanes <= length; i += kLanes) add(i, kLanes, weights);
        if (i < length) add(i, length - i, weights);
    }
    sums->error = add_lanes(error, sums->error);
    sums->moments.product = add_lanes(product, sums->moments.product);
    sums->moments.square = add_lanes(square, sums->moments.square);
}

template <typename Bits>
void add_fit(const Bits* values, const float* importance, int64_t count, Affine affine, CodeRange range,
             FitSums* sums) {
    const auto add = [&](const auto& of_value) {
        if (importance == nullptr) {
            add_fit_of<false>(values, importance, count, affine.scale, of_value, sums);
        } else {
            add_fit_of<true>(values, importance, count, affine.scale, of_value, sums);
        }
    };
    if (range.floats != nullptr) {
        const Minifloat format(*range.floats);
        return add([&](float value) __attribute__((always_inline)) { return format.nearest(value / affine.scale); });
    }
    const Quantizing<Bits> to_code(affine, range);
    add([&](float value) __attribute__((always_inline)) {
        return rounded_code<Bits>(value, to_code.divisor, to_code.lowest, to_code.highest) - kRounding;
    });
}

// A power of two that brings a scale near 1, so that floats neither overflow nor lose digits.
inline float unit_for(float scale) {
    const uint32_t exponent = bits_from_float(scale) >> 23;
    const uint32_t opposite = exponent < 1 ? 253 : exponent > 253 ? 1 : 254 - exponent;
    return float_from_bits(opposite << 23);
}

// A lane for each Affine. Sums of a tile without importance are floats: they only rank, and a tile has few values.
template <bool kFloats, typename Number, typename Bits>
void add_moments_as(const Bits* values, const float* importance, int64_t count, const Affine* affines, int affine_count,
                    CodeRange range, Moments* moments) {
    constexpr int kAffines = 64 / sizeof(Number);
    constexpr int64_t kFew = 256;
    constexpr Number kToInteger = sizeof(Number) == sizeof(float) ? static_cast<Number>(kRounding) : 0x1.8p52;
    using Numbers = Wide<Number, kAffines>;
    // To the nearest number of so many bits by splitting, ties either way; the smallest floats are like integers.
    Number splitter = 0, anchor = 0;
    Numbers least_normal = {}, most_negative = {};
    if constexpr (kFloats) {
        const Minifloat format(*range.floats);
        splitter = kToInteger / Number{1.5f} / static_cast<Number>(format.hidden) + 1;
        anchor = kToInteger * static_cast<Number>(format.smallest_exponent) / static_cast<Number>(format.hidden);
        least_normal = broadcast<Number, kAffines>(static_cast<Number>(format.smallest_exponent));
        most_negative = broadcast<Number, kAffines>(-static_cast<Number>(format.smallest_exponent));
    }
    float tile[kFew];
    const float unit = affine_count > 0 ? unit_for(affines[0].scale) : 1.0f;
    for (int64_t begin = 0; begin < count; begin += kFew) {
        const int64_t length = count - begin < kFew ? count - begin : kFew;
        widen(values + begin, length, tile);
        for (int64_t i = 0; i < length; ++i) tile[i] *= unit;
        for (int first = 0; first < affine_count; first += kAffines) {
            const int together = affine_count - first < kAffines ? affine_count - first : kAffines;
            Number reciprocals[kAffines] = {}, most[kAffines] = {}, least[kAffines] = {};
            for (int j = 0; j < together; ++j) {
                reciprocals[j] = 1.0f / (affines[first + j].scale * unit);
                least[j] = range.lowest - affines[first + j].zero_point;
                most[j] = range.highest - affines[first + j].zero_point;
            }
            Numbers reciprocal, lowest, highest, product = {}, square = {};
            load(reciprocals, reciprocal);
            load(least, lowest);
            load(most, highest);
            for (int64_t i = 0; i < length; ++i) {
                const Numbers value = broadcast<Number, kAffines>(tile[i]);
                Numbers code = value * reciprocal;
                code = choose(less(code, lowest), lowest, code);
                code = choose(less(highest, code), highest, code);
                if constexpr (kFloats) {
                    const Numbers split = code * splitter, normal = split - (split - code);
                    const Numbers subnormal = (code + anchor) - anchor;
                    const Numbers below = choose(less(most_negative, code), subnormal, normal);
                    code = choose(less(code, least_normal), below, normal);
                } else {
                    code = (code + kToInteger) - kToInteger;
                }
                const Numbers weighted = importance == nullptr ? code : code * Number{importance[begin + i]};
                product = product + value * weighted;
                square = square + code * weighted;
            }
            Number products[kAffines], squares[kAffines];
            store(product, products);
            store(square, squares);
            for (int j = 0; j < together; ++j) {
                moments[first + j].product += static_cast<double>(products[j]) / static_cast<double>(unit);
                moments[first + j].square += static_cast<double>(squares[j]);
            }
        }
    }
}

template <typename Bits>
void add_moments(const Bits* values, const float* importance, int64_t count, const Affine* affines, int affine_count,
                 CodeRange range, Moments* moments) {
    const auto add = [&](auto number) {
        using Number = decltype(number);
        if (range.floats != nullptr) {
            add_moments_as<true, Number>(values, importance, count, affines, affine_count, range, moments);
        } else {
            add_moments_as<false, Number>(values, importance, count, affines, affine_count, range, moments);
        }
    };
    if (importance == nullptr) {
        add(float{});
    } else {
        add(double{});
    }
}
