// Numbers of about 106 bits as the unevaluated sum of two doubles, for costs that cancel nearly completely.
// Algorithms: T. J. Dekker, "A floating-point technique for extending the available precision", 1971.
#pragma once

namespace corepress {

struct DoubleDouble {
    double high = 0;
    double low = 0;
    DoubleDouble() = default;
    explicit DoubleDouble(double value) : high(value) {}
    DoubleDouble(double high_part, double low_part) : high(high_part), low(low_part) {}
};

inline DoubleDouble quick_sum(double large, double small) {
    const double sum = large + small;
    return {sum, small - (sum - large)};
}

inline DoubleDouble exact_sum(double a, double b) {
    const double sum = a + b;
    const double part = sum - a;
    return {sum, (a - (sum - part)) + (b - part)};
}

inline DoubleDouble exact_product(double a, double b) {
    constexpr double kSplit = 134217729.0;  // 2^27 + 1
    const double a_scaled = kSplit * a, b_scaled = kSplit * b;
    const double a_high = a_scaled - (a_scaled - a), b_high = b_scaled - (b_scaled - b);
    const double a_low = a - a_high, b_low = b - b_high;
    const double product = a * b;
    return {product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low};
}

inline DoubleDouble operator+(DoubleDouble a, DoubleDouble b) {
    const DoubleDouble sum = exact_sum(a.high, b.high);
    return quick_sum(sum.high, sum.low + a.low + b.low);
}

inline DoubleDouble operator-(DoubleDouble a) { return {-a.high, -a.low}; }

inline DoubleDouble operator-(DoubleDouble a, DoubleDouble b) { return a + (-b); }

inline DoubleDouble operator*(DoubleDouble a, DoubleDouble b) {
    const DoubleDouble product = exact_product(a.high, b.high);
    return quick_sum(product.high, product.low + a.high * b.low + a.low * b.high);
}

inline DoubleDouble operator/(DoubleDouble a, DoubleDouble b) {
    const double first = a.high / b.high;
    const DoubleDouble rest = a - b * DoubleDouble(first);
    return quick_sum(first, rest.high / b.high);
}

inline bool operator<(DoubleDouble a, DoubleDouble b) { return a.high < b.high || (a.high == b.high && a.low < b.low); }

inline double to_double(double value) { return value; }
inline double to_double(DoubleDouble value) { return value.high; }

template <typename Number>
Number difference(double a, double b);
template <>
inline double difference<double>(double a, double b) {
    return a - b;
}
template <>
inline DoubleDouble difference<DoubleDouble>(double a, double b) {
    return exact_sum(a, -b);
}

}  // namespace corepress
