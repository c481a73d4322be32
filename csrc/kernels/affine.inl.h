// Values to integers with a scale and a zero point, and back.

// Adding and subtracting 1.5 * 2^23 rounds a float below 2^22 to the nearest integer, ties to even, in two additions on
// every machine (SSE2 has no rounding instruction).
inline float round_to_even(float value) { return (value + 12582912.0f) - 12582912.0f; }

inline uint8_t quantize_value(float value, Affine affine, CodeRange range) {
    // Clipping before rounding is the same as after it, since the bounds are integers, and keeps the value small.
    const float lowest = range.lowest - affine.zero_point;
    const float highest = range.highest - affine.zero_point;
    float quotient = value / affine.scale;
    quotient = quotient < lowest ? lowest : quotient;
    quotient = quotient > highest ? highest : quotient;
    return static_cast<uint8_t>(static_cast<int32_t>(round_to_even(quotient) + affine.zero_point));
}

template <typename Bits>
void quantize(const Bits* values, int64_t count, Affine affine, CodeRange range, uint8_t* codes) {
    float tile[kTile];
    for (int64_t begin = 0; begin < count; begin += kTile) {
        const int64_t length = count - begin < kTile ? count - begin : kTile;
        widen(values + begin, length, tile);
        for (int64_t i = 0; i < length; ++i) codes[begin + i] = quantize_value(tile[i], affine, range);
    }
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

inline float dequantize_value(uint8_t code, Affine affine, bool is_signed) {
    const int32_t integer = is_signed ? static_cast<int32_t>(static_cast<int8_t>(code)) : static_cast<int32_t>(code);
    return (static_cast<float>(integer) - affine.zero_point) * affine.scale;
}

template <typename Bits>
void dequantize(const uint8_t* codes, int64_t count, Affine affine, bool is_signed, Bits* values) {
    float tile[kTile];
    for (int64_t begin = 0; begin < count; begin += kTile) {
        const int64_t length = count - begin < kTile ? count - begin : kTile;
        for (int64_t i = 0; i < length; ++i) tile[i] = dequantize_value(codes[begin + i], affine, is_signed);
        narrow(tile, length, values + begin);
    }
}

template <typename Bits>
void dequantize_columns(const uint8_t* codes, int64_t rows, int64_t columns, const Affine* affines, bool is_signed,
                        Bits* values) {
    float tile[kTile];
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t begin = 0; begin < columns; begin += kTile) {
            const int64_t length = columns - begin < kTile ? columns - begin : kTile;
            const int64_t offset = row * columns + begin;
            for (int64_t i = 0; i < length; ++i) {
                tile[i] = dequantize_value(codes[offset + i], affines[begin + i], is_signed);
            }
            narrow(tile, length, values + offset);
        }
    }
}
