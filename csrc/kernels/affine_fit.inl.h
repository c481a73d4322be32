// What finds the best scales: errors and moments of codes, and keys of values in order.

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
