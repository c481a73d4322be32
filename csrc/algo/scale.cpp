#include "algo/scale.h"

#include <algorithm>
#include <cmath>

#include "dispatch.h"

namespace corepress {
namespace {

template <typename Bits>
float step(float scale, int steps) {
    return Format<Bits>::to_float(static_cast<Bits>(Format<Bits>::from_float(scale) + steps));
}

template <typename Bits>
bool decodes_finite(float scale, double code) {
    const float value = static_cast<float>(code) * scale;
    return (Format<Bits>::from_float(value) & Format<Bits>::kMagnitude) < Format<Bits>::kInfinity;
}

template <typename Bits>
bool all_decode_finite(Affine affine, CodeRange range) {
    const auto decodes = [&](float code) {
        return decodes_finite<Bits>(affine.scale, static_cast<double>(code) - static_cast<double>(affine.zero_point));
    };
    return decodes(range.lowest) && decodes(range.highest);
}

// Calls body(values, count) for the values of a block, a tile of short runs at a time.
template <typename Bits, typename Body>
void for_each_tile(const Bits* values, const BlockLayout& layout, int64_t group, const Body& body) {
    constexpr int64_t kTile = 1024, kLongRun = 32;
    Bits tile[kTile];
    int64_t filled = 0;
    layout.for_each_run(group, [&](int64_t offset, int64_t length) {
        if (length >= kLongRun || length == layout.group_size()) return body(values + offset, length);
        if (filled + length > kTile) {
            body(tile, filled);
            filled = 0;
        }
        std::copy_n(values + offset, length, tile + filled);
        filled += length;
    });
    if (filled > 0) body(tile, filled);
}

template <typename Bits>
FitSums fit(const Bits* values, const BlockLayout& layout, int64_t group, Affine affine, CodeRange range) {
    FitSums sums;
    for_each_tile(values, layout, group, [&](const Bits* tile, int64_t count) {
        kernels_for<Bits>(kernels()).add_fit(tile, count, affine, range, &sums);
    });
    return sums;
}

}  // namespace

Codes codes_of(AffineEncoding encoding) {
    const IntegerType type = encoding.type;
    const CodeRange all{static_cast<float>(type.lowest()), static_cast<float>(type.highest())};
    if (!encoding.symmetric) return {all, all, 0};
    CodeRange centred = all;
    if (type.is_signed) {
        ++centred.lowest;
    } else {
        --centred.highest;
    }
    return {centred, encoding.search_scale ? all : centred, (centred.lowest + centred.highest) / 2};
}

template <typename Bits>
Affine choose_affine(double low, double high, const Codes& codes, bool symmetric) {
    const double lowest = static_cast<double>(codes.scaled.lowest), highest = static_cast<double>(codes.scaled.highest);
    Affine affine{1, symmetric ? codes.symmetric_zero_point : 0};
    if (symmetric) {
        high = std::max(std::fabs(low), std::fabs(high));
        low = -high;
    } else {
        low = std::min(low, 0.0);
        high = std::max(high, 0.0);
    }
    if (high == low) return affine;  // all zero
    if (!symmetric) {
        const double zero_point = std::nearbyint((lowest * high - highest * low) / (high - low));
        affine.zero_point = static_cast<float>(std::min(std::max(zero_point, lowest), highest));
    }
    // The range is rounded to the format first, as coremltools does, unless that overflows: a scale one step off could
    // by chance have a larger error than coremltools'.
    const Bits rounded = Format<Bits>::from_float(static_cast<float>(high - low));
    const double range = rounded < Format<Bits>::kInfinity ? Format<Bits>::to_float(rounded) : high - low;
    const Bits bits = Format<Bits>::from_float(static_cast<float>(range / (highest - lowest)));
    affine.scale = Format<Bits>::to_float(std::max(bits, Format<Bits>::kMinimum));
    while (!all_decode_finite<Bits>(affine, codes.used)) affine.scale = step<Bits>(affine.scale, -1);
    return affine;
}

template <typename Bits>
bool is_coarse(float scale) {
    return Format<Bits>::from_float(scale) < Format<Bits>::kNormal;
}

template <typename Bits>
Affine round_scale(const Bits* values, const BlockLayout& layout, int64_t group, const Codes& codes, Affine affine) {
    const Affine above{step<Bits>(affine.scale, 1), affine.zero_point};
    const double error = fit(values, layout, group, affine, codes.used).error;
    return fit(values, layout, group, above, codes.used).error < error ? above : affine;
}

template Affine choose_affine<uint16_t>(double, double, const Codes&, bool);
template Affine choose_affine<uint32_t>(double, double, const Codes&, bool);
template bool is_coarse<uint16_t>(float);
template bool is_coarse<uint32_t>(float);
template Affine round_scale(const uint16_t*, const BlockLayout&, int64_t, const Codes&, Affine);
template Affine round_scale(const uint32_t*, const BlockLayout&, int64_t, const Codes&, Affine);

}  // namespace corepress
