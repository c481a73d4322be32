// The one conversion between the 16-bit formats and float, to nearest even, and the order-preserving keys of all.
//
// A key is a signed integer of the value's width that sorts as the values do: -inf < ... < -0 < 0 < ... < inf, NaNs
// outside. Everything is static so that files compiled for different instruction sets never share a copy.
#pragma once

#include <stdint.h>
#include <string.h>

namespace corepress {
namespace {

inline float float_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

inline uint32_t bits_from_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// Places exponent and mantissa where a float has them; the multiplication by 2^112 corrects the exponent's bias and
// normalises subnormals, both exactly.
inline float float_from_half(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
    const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fff) << 13;
    const uint32_t scaled = bits_from_float(float_from_bits(magnitude) * 0x1p112f);
    const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;
    return float_from_bits(scaled | special | sign);
}

// Adding a power of two whose last place is that of the half makes the addition itself round to nearest even.
inline uint16_t half_from_float(float value) {
    const uint32_t bits = bits_from_float(value);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t exponent = magnitude & 0x7f800000u;
    exponent = exponent < 0x38800000u ? 0x38800000u : exponent;                    // the smallest normal half is 2^-14
    const float anchor = float_from_bits((exponent + 0x06800000u) & 0x7f800000u);  // 2^13 times the exponent
    const uint32_t rounded = bits_from_float(float_from_bits(magnitude) + anchor) - bits_from_float(anchor);
    const uint32_t finite = ((exponent - 0x38800000u) >> 13) + rounded;
    // 65520 and more is infinite; NaN stays a quiet NaN.
    const uint32_t overflow = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    return static_cast<uint16_t>((magnitude >= 0x477ff000u ? overflow : finite) | sign);
}

// bfloat16, the upper half of a float. A type of its own, since uint16_t stands for half; this one is an integer too.
using BFloat16Bits = char16_t;

inline float float_from_bfloat16(BFloat16Bits bits) { return float_from_bits(static_cast<uint32_t>(bits) << 16); }

inline BFloat16Bits bfloat16_from_float(float value) {
    const uint32_t bits = bits_from_float(value);
    const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;  // beyond the largest it carries to infinity
    const uint32_t quiet = (bits >> 16 & 0x8000u) | 0x7fc0u;
    return static_cast<BFloat16Bits>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

template <typename Bits>
struct Format;

template <>
struct Format<uint16_t> {
    using Key = int16_t;
    static constexpr int kWidth = 16;
    static constexpr uint16_t kMagnitude = 0x7fff;
    static constexpr uint16_t kInfinity = 0x7c00;
    static constexpr uint16_t kMinimum = 1;      // the smallest positive value
    static constexpr uint16_t kNormal = 0x0400;  // the smallest of full precision
    static float to_float(uint16_t bits) { return float_from_half(bits); }
    static uint16_t from_float(float value) { return half_from_float(value); }
};

template <>
struct Format<BFloat16Bits> {
    using Key = int16_t;
    static constexpr int kWidth = 16;
    static constexpr BFloat16Bits kMagnitude = 0x7fff;
    static constexpr BFloat16Bits kInfinity = 0x7f80;
    static constexpr BFloat16Bits kMinimum = 1;
    static constexpr BFloat16Bits kNormal = 0x0080;
    static float to_float(BFloat16Bits bits) { return float_from_bfloat16(bits); }
    static BFloat16Bits from_float(float value) { return bfloat16_from_float(value); }
};

template <>
struct Format<uint32_t> {
    using Key = int32_t;
    static constexpr int kWidth = 32;
    static constexpr uint32_t kMagnitude = 0x7fffffff;
    static constexpr uint32_t kInfinity = 0x7f800000;
    static constexpr uint32_t kMinimum = 1;
    static constexpr uint32_t kNormal = 0x00800000;
    static float to_float(uint32_t bits) { return float_from_bits(bits); }
    static uint32_t from_float(float value) { return bits_from_float(value); }
};

template <typename Bits>
inline typename Format<Bits>::Key key_from_bits(Bits bits) {
    using Key = typename Format<Bits>::Key;
    const Bits sign = static_cast<Bits>(static_cast<Key>(bits) >> (Format<Bits>::kWidth - 1));
    return static_cast<Key>(bits ^ (sign & Format<Bits>::kMagnitude));
}

template <typename Bits>
inline Bits bits_from_key(typename Format<Bits>::Key key) {
    return static_cast<Bits>(key_from_bits<Bits>(static_cast<Bits>(key)));  // the map is its own inverse
}

// The value of a key, which double holds exactly.
template <typename Bits>
inline double value_of_key(int64_t key) {
    using Key = typename Format<Bits>::Key;
    return static_cast<double>(Format<Bits>::to_float(bits_from_key<Bits>(static_cast<Key>(key))));
}

// Whether all keys from the lowest to the highest are of finite values: infinities and NaNs have the outermost keys.
template <typename Bits>
inline bool is_finite_range(typename Format<Bits>::Key lowest, typename Format<Bits>::Key highest) {
    constexpr Bits kLargest = static_cast<Bits>(Format<Bits>::kInfinity - 1);
    return lowest >= key_from_bits(static_cast<Bits>(kLargest | ~Format<Bits>::kMagnitude)) &&
           highest <= key_from_bits(kLargest);
}

// Rounds a double once, through a float whose last bit is made odd if anything was lost: that keeps what the second
// rounding needs to know. Zero is always +0.
template <typename Bits>
inline Bits bits_from_double(double value) {
    float single = static_cast<float>(value);
    const double widened = static_cast<double>(single);
    if (sizeof(Bits) == 2 && widened != value) {
        const bool away = (widened < 0 ? -widened : widened) > (value < 0 ? -value : value);
        single = float_from_bits((bits_from_float(single) - (away ? 1u : 0u)) | 1u);
    }
    const Bits bits = Format<Bits>::from_float(single);
    return (bits & Format<Bits>::kMagnitude) == 0 ? Bits{0} : bits;
}

// The number of patterns of a value's upper 16 bits: all there are of the 16-bit formats.
constexpr int kPatterns = 1 << 16;

// The bits as they are stored of the pattern at a place in key order.
inline size_t stored_pattern(int pattern) {
    return static_cast<size_t>(pattern < kPatterns / 2 ? kPatterns - 1 - pattern : pattern - kPatterns / 2);
}

}  // namespace
}  // namespace corepress
