// Values to floats of 8 or 4 bits with a scale, and back.

// A FloatCode as the loops need it. Values are brought to a float's bits, where all is additions and shifts.
struct Minifloat {
    float largest;
    int shift;                // from the mantissa's place in a float to the one in a code
    int sign_shift;           // of the sign, from its place in a float
    int32_t least_normal;     // bits of the smallest number of full precision
    int32_t least_special;    // magnitude
    int32_t magnitude;        // bits of a code
    int32_t sign;             // bit of a code
    int32_t rebias;           // of exponents, from codes to floats
    int32_t hidden;           // the least code of full precision
    float smallest_exponent;  // what subnormal codes have too much if they are read as normal ones

    explicit Minifloat(const FloatCode& code)
        : largest(code.largest),
          shift(23 - code.mantissa_bits),
          sign_shift(32 - code.nbits),
          least_normal((128 - code.bias) << 23),
          least_special(code.special),
          magnitude((1 << (code.nbits - 1)) - 1),
          sign(1 << (code.nbits - 1)),
          rebias((127 - code.bias) << 23),
          hidden(1 << code.mantissa_bits),
          smallest_exponent(float_from_bits(static_cast<uint32_t>(128 - code.bias) << 23)) {}

    // The magnitude, at most the largest, and a power of two whose last place is that of the code: adding it rounds to
    // nearest even.
    struct Anchored {
        float magnitude, anchor;
        int32_t exponent;
    };
    inline __attribute__((always_inline)) Anchored anchored(float value) const {
        const float given = float_from_bits(bits_from_float(value) & 0x7fffffffu);
        const float inside = given < largest ? given : largest;
        const int32_t found = static_cast<int32_t>(bits_from_float(inside) & 0x7f800000u);
        const int32_t exponent = found < least_normal ? least_normal : found;
        return {inside, float_from_bits(static_cast<uint32_t>(exponent + (shift << 23))), exponent};
    }

    // The nearest number of the format.
    inline __attribute__((always_inline)) float nearest(float value) const {
        const Anchored number = anchored(value);
        const float rounded = (number.magnitude + number.anchor) - number.anchor;
        return float_from_bits(bits_from_float(rounded) | (bits_from_float(value) & 0x80000000u));
    }

    inline __attribute__((always_inline)) uint8_t code(float value) const {
        const Anchored number = anchored(value);
        const uint32_t places = bits_from_float(number.magnitude + number.anchor) - bits_from_float(number.anchor);
        const uint32_t exponents = static_cast<uint32_t>(number.exponent - least_normal) >> shift;
        const uint32_t sign_of_code = (bits_from_float(value) & 0x80000000u) >> sign_shift;
        return static_cast<uint8_t>((exponents + places) | sign_of_code);
    }

    inline __attribute__((always_inline)) float value(uint8_t code) const {
        const int32_t unsigned_code = code & magnitude;
        const int32_t bits = (unsigned_code << shift) + rebias;
        // Read as a float, a subnormal code would be a subnormal float, which processors multiply slowly.
        const float subnormal = float_from_bits(static_cast<uint32_t>(bits + (1 << 23))) - smallest_exponent;
        const float normal = float_from_bits(static_cast<uint32_t>(bits));
        const float number = unsigned_code < hidden ? subnormal : normal;
        const uint32_t special = unsigned_code >= least_special ? 0x7f800000u : 0u;
        const uint32_t sign_of_float = static_cast<uint32_t>(code & sign) << sign_shift;
        return float_from_bits(bits_from_float(number) | special | sign_of_float);
    }
};

template <typename Bits>
void quantize_float_runs(const Bits* values, int64_t runs, int64_t length, const Affine* affines, const FloatCode& code,
                         uint8_t* codes) {
    const Minifloat format(code);
    float tile[kTile];
    ValueAffines of_values;
    for_each_tile(runs, length, [&](int64_t offset, int64_t first, int64_t count, int64_t part) {
        widen(values + offset, count * part, tile);
        uint8_t* const to = codes + offset;
        if (length < kShortRun) {
            of_values.spread(affines + first, count, part, [](float scale) { return scale; });
            for (int64_t i = 0; i < count * part; ++i) to[i] = format.code(tile[i] / of_values.factor[i]);
            return;
        }
        with_constant(
            part, [&](int64_t size) __attribute__((always_inline)) {
                for (int64_t run = 0; run < count; ++run) {
                    const float scale = affines[first + run].scale;
                    const float* const from = tile + run * size;
                    for (int64_t i = 0; i < size; ++i) to[run * size + i] = format.code(from[i] / scale);
                }
            });
    });
}

template <typename Bits>
void quantize_float_columns(const Bits* values, int64_t rows, int64_t columns, const Affine* affines,
                            const FloatCode& code, uint8_t* codes) {
    const Minifloat format(code);
    float tile[kTile];
    ValueAffines of_values;
    for_each_row_tile(
        rows, columns,
        [&](int64_t first, int64_t width, int64_t together) {
            of_values.repeat_columns(affines + first, width, together, [](float scale) { return scale; });
        },
        [&](int64_t offset, int64_t count) {
            widen(values + offset, count, tile);
            for (int64_t i = 0; i < count; ++i) codes[offset + i] = format.code(tile[i] / of_values.factor[i]);
        });
}

template <typename Bits>
void dequantize_float_runs(const uint8_t* codes, int64_t runs, int64_t length, const Affine* affines,
                           const FloatCode& code, Bits* values) {
    const Minifloat format(code);
    float tile[kTile];
    ValueAffines of_values;
    for_each_tile(runs, length, [&](int64_t offset, int64_t first, int64_t count, int64_t part) {
        const uint8_t* const from = codes + offset;
        if (length < kShortRun) {
            of_values.spread(affines + first, count, part, [](float scale) { return scale; });
            for (int64_t i = 0; i < count * part; ++i) tile[i] = format.value(from[i]) * of_values.factor[i];
        } else {
            with_constant(
                part, [&](int64_t size) __attribute__((always_inline)) {
                    for (int64_t run = 0; run < count; ++run) {
                        const float scale = affines[first + run].scale;
                        float* const to = tile + run * size;
                        for (int64_t i = 0; i < size; ++i) to[i] = format.value(from[run * size + i]) * scale;
                    }
                });
        }
        narrow(tile, count * part, values + offset);
    });
}

template <typename Bits>
void dequantize_float_columns(const uint8_t* codes, int64_t rows, int64_t columns, const Affine* affines,
                              const FloatCode& code, Bits* values) {
    const Minifloat format(code);
    float tile[kTile];
    ValueAffines of_values;
    for_each_row_tile(
        rows, columns,
        [&](int64_t first, int64_t width, int64_t together) {
            of_values.repeat_columns(affines + first, width, together, [](float scale) { return scale; });
        },
        [&](int64_t offset, int64_t count) {
            for (int64_t i = 0; i < count; ++i) {
                tile[i] = format.value(codes[offset + i]) * of_values.factor[i];
            }
            narrow(tile, count, values + offset);
        });
}
