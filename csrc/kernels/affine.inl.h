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
