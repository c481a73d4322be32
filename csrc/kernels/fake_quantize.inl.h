// Values rounded to what integers express, and the derivatives of that.

// The integer less the zero point, clipped before and after it is rounded.
inline __attribute__((always_inline)) float fake_integer(float quotient, const FakeStep& step) {
    quotient = quotient < step.lowest ? step.lowest : quotient;
    quotient = quotient > step.highest ? step.highest : quotient;
    return (quotient + kRounding) - kRounding;
}

void fake_quantize(const float* values, int64_t count, const FakeStep& step, float* results) {
    const FakeStep own = step;
    for (int64_t i = 0; i < count; ++i) results[i] = fake_integer(values[i] * own.reciprocal, own) * own.scale;
}

void fake_quantize_slopes(const float* values, const float* gradient, int64_t count, const FakeStep& step,
                          float* results, FakeSlopes* sums) {
    const FakeStep own = step;
    Doubles of_scale = broadcast<double, kLanes>(0.0), outside = of_scale, some;
    float multiplied[kTile], lost[kTile];
    for (int64_t begin = 0; begin < count; begin += kTile) {
        const int64_t length = count - begin < kTile ? count - begin : kTile;
        const float* const x = values + begin;
        const float* const slope = gradient + begin;
        float* const to = results + begin;
        if (sums == nullptr) {
            for (int64_t i = 0; i < length; ++i) {
                const float not_below = x[i] >= own.least ? slope[i] : 0.0f;
                to[i] = x[i] <= own.largest ? not_below : 0.0f;
            }
            continue;
        }
        for (int64_t i = 0; i < length; ++i) {
            const float quotient = x[i] * own.reciprocal;
            const float not_below = x[i] >= own.least ? 1.0f : 0.0f;
            const float passed = x[i] <= own.largest ? not_below : 0.0f;
            const float inside = passed > 0 ? slope[i] : 0.0f;
            to[i] = inside;
            multiplied[i] = slope[i] * (fake_integer(quotient, own) - (passed > 0 ? quotient : 0.0f));
            lost[i] = slope[i] - inside;
        }
        int64_t i = 0;
        for (; i + kLanes <= length; i += kLanes) {
            load(multiplied + i, some);
            of_scale = of_scale + some;
            load(lost + i, some);
            outside = outside + some;
        }
        if (i < length) {
            load(multiplied + i, length - i, some);
            of_scale = of_scale + some;
            load(lost + i, length - i, some);
            outside = outside + some;
        }
    }
    if (sums != nullptr) *sums = {add_lanes(of_scale, 0.0), add_lanes(outside, 0.0)};
}
