#include "algo/affine/scale.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/rounding.h"
#include "core/stop.h"
#include "dispatch.h"

namespace corepress {
namespace {

template <typename Bits>
float step(float scale, int steps) {
    return Format<Bits>::to_float(static_cast<Bits>(int64_t{Format<Bits>::from_float(scale)} + steps));
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

// Of powers of two that are scales.
constexpr int kLeastExponent = -127, kLargestExponent = 127;

template <typename Bits>
float round_up_from_zero(double scale) {
    const Bits bits = Format<Bits>::from_float(static_cast<float>(scale));
    return Format<Bits>::to_float(std::max(bits, Format<Bits>::kMinimum));
}

// Calls body(values, importance, count) for parts of a run, between which it can be stopped.
template <typename Bits, typename Body>
[[gnu::noinline]] void in_parts(const Bits* values, const float* importance, int64_t length, int64_t part,
                                const Body& body) {
    for (int64_t begin = 0; begin < length; begin += part) {
        check_stop();
        body(values + begin, importance == nullptr ? nullptr : importance + begin, std::min(part, length - begin));
    }
}

// Calls body(values, importance, count) for the values of a block, a tile of short runs at a time.
template <typename Bits, typename Body>
void for_each_tile(const BlockValues<Bits>& block, const Body& body) {
    constexpr int64_t kTile = 1024, kLongRun = 32, kLongestRun = int64_t{1} << 22;
    Bits tile[kTile];
    float importance[kTile];
    const bool weighted = block.importance != nullptr;
    int64_t filled = 0;
    if (block.layout.group_size() > kLongestRun) check_stop();
    block.layout.for_each_run(block.group, [&](int64_t offset, int64_t length) {
        const float* const of_run = weighted ? block.importance + offset : nullptr;
        if (length >= kLongRun || length == block.layout.group_size()) {
            if (length <= kLongestRun) return body(block.values + offset, of_run, length);
            return in_parts(block.values + offset, of_run, length, kLongestRun, body);
        }
        if (filled + length > kTile) {
            body(tile, weighted ? importance : nullptr, filled);
            filled = 0;
        }
        std::copy_n(block.values + offset, length, tile + filled);
        if (weighted) std::copy_n(of_run, length, importance + filled);
        filled += length;
    });
    if (filled > 0) body(tile, weighted ? importance : nullptr, filled);
}

template <typename Bits>
FitSums fit(const BlockValues<Bits>& block, Affine affine, CodeRange range) {
    FitSums sums;
    for_each_tile(block, [&](const Bits* tile, const float* importance, int64_t count) {
        kernels_for<Bits>(kernels()).add_fit(tile, importance, count, affine, range, &sums);
    });
    return sums;
}

// The block as the search sees it: one without any importance is one where all values matter alike.
template <typename Bits>
BlockValues<Bits> with_some_importance(BlockValues<Bits> block) {
    bool any = false;
    if (block.importance != nullptr) {
        for_each_tile(block, [&](const Bits*, const float* importance, int64_t count) {
            any = any || std::any_of(importance, importance + count, [](float weight) { return weight > 0; });
        });
    }
    if (!any) block.importance = nullptr;
    return block;
}

// Whether the zero point is a code and all codes decode to finite values.
template <typename Bits>
bool is_usable(Affine affine, CodeRange range) {
    constexpr double kSafe = sizeof(Bits) == 2 ? 0x1p15 : 0x1p127;
    const bool in_range = affine.zero_point >= range.lowest && affine.zero_point <= range.highest;
    const double span = static_cast<double>(range.highest) - static_cast<double>(range.lowest);
    const double largest = static_cast<double>(affine.scale) * span;
    return in_range && (largest < kSafe || all_decode_finite<Bits>(affine, range));
}

// Of a scale, what is tried: for short blocks nearly always from 47 to 76, for long ones less. 32 fill two registers.
constexpr int kSixtyFourths[] = {40, 42, 44, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58,
                                 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 76};

// Scales and zero points to rank, as many as there may be at most.
template <typename Bits>
struct Candidates {
    static constexpr int kMost = 96;
    Affine affines[kMost];
    int count = 0;

    void add(double scale, double zero_point, CodeRange range) {
        const Affine affine{round_up_from_zero<Bits>(scale), static_cast<float>(zero_point)};
        if (is_usable<Bits>(affine, range)) affines[count++] = affine;
    }
};

// The candidates whose codes explain most of the values' squares, best first, the first of equal ones first, and one
// for each set of codes.
struct Leaders {
    static constexpr int kMost = 3;
    int candidates[kMost];
    double explained[kMost];
    int count = 0;

    // `part` is what the candidate's codes explain, NaN where all of them are 0.
    void enter(const Moments* moments, int candidate, double part) {
        const Moments& entering = moments[candidate];
        if (!(part > (count < kMost ? 0.0 : explained[kMost - 1]))) return;
        int place = count;
        while (place > 0 && explained[place - 1] < part) --place;
        for (int i = 0; i < place; ++i) {  // of a scale half as large, other codes may explain as much
            const Moments& other = moments[candidates[i]];
            if (other.product == entering.product && other.square == entering.square) return;
        }
        count = std::min(count + 1, kMost);
        for (int i = count - 1; i > place; --i) {
            candidates[i] = candidates[i - 1];
            explained[i] = explained[i - 1];
        }
        candidates[place] = candidate;
        explained[place] = part;
    }
};

template <typename Bits>
class AffineSearch {
public:
    AffineSearch(const BlockValues<Bits>& block, CodeRange range, Affine start)
        : block_(block), range_(range), best_(start) {
        best_sums_ = fit(block, start, range);
    }

    Affine best() const { return best_; }
    bool is_exact() const { return best_sums_.error == 0; }

    // Improves the candidates that promise most: of fixed codes, the squared error under their best scale is the sum of
    // squares less product^2 / square.
    void improve_the_most_promising(const Candidates<Bits>& candidates, bool symmetric) {
        Moments moments[Candidates<Bits>::kMost];
        for_each_tile(block_, [&](const Bits* tile, const float* importance, int64_t count) {
            kernels_for<Bits>(kernels()).add_moments(tile, importance, count, candidates.affines, candidates.count,
                                                     range_, moments);
        });
        double explained[Candidates<Bits>::kMost];
        for (int j = 0; j < candidates.count; ++j) {
            explained[j] = moments[j].product * moments[j].product / moments[j].square;
        }
        Leaders leaders;
        for (int j = 0; j < candidates.count; ++j) leaders.enter(moments, j, explained[j]);
        for (int place = 0; place < leaders.count; ++place) {
            const int leader = leaders.candidates[place];
            improve(moments[leader], candidates.affines[leader].zero_point, symmetric);
        }
    }

private:
    void improve(Moments moments, float zero_point, bool symmetric) {
        constexpr int kMostRounds = 6;
        consider_scale_of(moments, zero_point);
        bool improved = true;
        for (int i = 0; i < kMostRounds && improved; ++i) {
            improved = consider_scale_of(best_sums_.moments, best_.zero_point);
            if (symmetric) continue;
            const Affine centre = best_;
            for (const float shift : {-1.0f, 1.0f}) {
                improved = consider(static_cast<double>(centre.scale), centre.zero_point + shift) || improved;
            }
        }
    }

    bool consider_scale_of(Moments moments, float zero_point) {
        return moments.product > 0 && consider(moments.product / moments.square, zero_point);
    }

    // Whether this is the best so far. What has been considered before is not: the best only improves.
    bool consider(double scale, float zero_point) {
        const Affine affine{round_up_from_zero<Bits>(scale), zero_point};
        const auto is_same = [&](Affine other) {
            return affine.scale == other.scale && affine.zero_point == other.zero_point;
        };
        if (!is_usable<Bits>(affine, range_) || is_same(best_)) return false;
        if (std::any_of(considered_, considered_ + considered_count_, is_same)) return false;
        if (considered_count_ < kMostConsidered) considered_[considered_count_++] = affine;
        const FitSums sums = fit(block_, affine, range_);
        if (!(sums.error < best_sums_.error)) return false;
        best_ = affine;
        best_sums_ = sums;
        return true;
    }

    BlockValues<Bits> block_;
    CodeRange range_;
    Affine best_;
    FitSums best_sums_;
    static constexpr int kMostConsidered = 64;
    Affine considered_[kMostConsidered];
    int considered_count_ = 0;
};

}  // namespace

Codes codes_of(AffineEncoding encoding) {
    const CodeType type = encoding.type;
    if (type.floats != nullptr) {
        const CodeRange range{-type.floats->largest, type.floats->largest, type.floats};
        return {range, range, 0};
    }
    const CodeRange all{static_cast<float>(type.lowest()), static_cast<float>(type.highest())};
    if (!encoding.symmetric) return {all, all, 0};
    CodeRange centred = all;
    if (type.is_signed) {
        ++centred.lowest;
    } else {
        --centred.highest;
    }
    const bool uses_all = encoding.search_scale && !encoding.binary_scales;
    return {centred, uses_all ? all : centred, (centred.lowest + centred.highest) / 2};
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
        const double zero_point = round_to_even((lowest * high - highest * low) / (high - low));
        affine.zero_point = static_cast<float>(std::min(std::max(zero_point, lowest), highest));
    }
    // The range is rounded to the format first, as coremltools does, unless that overflows: a scale one step off could
    // by chance have a larger error than coremltools'.
    const Bits rounded = Format<Bits>::from_float(static_cast<float>(high - low));
    const double range = rounded < Format<Bits>::kInfinity ? Format<Bits>::to_float(rounded) : high - low;
    const Bits bits = Format<Bits>::from_float(static_cast<float>(range / (highest - lowest)));
    affine.scale = Format<Bits>::to_float(std::max(bits, Format<Bits>::kMinimum));
    while (!all_decode_finite<Bits>(affine, codes.scaled)) affine.scale = step<Bits>(affine.scale, -1);
    return affine;
}

template <typename Bits>
bool is_coarse(float scale) {
    return Format<Bits>::from_float(scale) < Format<Bits>::kNormal;
}

template <typename Bits>
Affine round_scale(const BlockValues<Bits>& given, const Codes& codes, Affine affine) {
    const BlockValues<Bits> block = with_some_importance(given);
    const Affine above{step<Bits>(affine.scale, 1), affine.zero_point};
    const double error = fit(block, affine, codes.used).error;
    return fit(block, above, codes.used).error < error ? above : affine;
}

template <typename Bits>
Affine choose_binary_affine(double low, double high, const Codes& codes) {
    Affine affine{1, codes.symmetric_zero_point};
    const double magnitude = std::max(std::fabs(low), std::fabs(high));
    if (magnitude == 0) return affine;
    const double highest = static_cast<double>(codes.scaled.highest) - static_cast<double>(affine.zero_point);
    // Both are normal numbers of double: their exponents differ by the scale's, or by one less.
    uint64_t of_magnitude, of_highest;
    std::memcpy(&of_magnitude, &magnitude, sizeof magnitude);
    std::memcpy(&of_highest, &highest, sizeof highest);
    constexpr uint64_t kMantissa = (uint64_t{1} << 52) - 1;
    const int above = (of_magnitude & kMantissa) > (of_highest & kMantissa) ? 1 : 0;
    const int exponent = static_cast<int>(of_magnitude >> 52) - static_cast<int>(of_highest >> 52) + above;
    const int within = std::min(std::max(exponent, kLeastExponent), kLargestExponent);
    affine.scale = scale_of_exponent(static_cast<uint8_t>(within + 127));
    while (!is_usable<Bits>(affine, codes.used)) affine.scale /= 2;
    return affine;
}

template <typename Bits>
Affine search_binary_affine(const BlockValues<Bits>& given, const Codes& codes, Affine start) {
    const BlockValues<Bits> block = with_some_importance(given);
    Affine best = start;
    double least = fit(block, start, codes.used).error;
    for (const int shift : {-1, -2, 1}) {
        const int exponent = std::ilogb(start.scale) + shift;
        const Affine affine{std::ldexp(1.0f, exponent), start.zero_point};
        if (exponent < kLeastExponent || exponent > kLargestExponent || least == 0) continue;
        if (!all_decode_finite<Bits>(affine, codes.used)) continue;
        const double error = fit(block, affine, codes.used).error;
        if (!(error < least)) continue;
        best = affine;
        least = error;
    }
    return best;
}

template <typename Bits>
Affine search_affine(const BlockValues<Bits>& block, double low, double high, const Codes& codes, bool symmetric,
                     Affine start) {
    AffineSearch<Bits> search(with_some_importance(block), codes.used, start);
    if (search.is_exact()) return start;
    const double lowest = static_cast<double>(codes.used.lowest), highest = static_cast<double>(codes.used.highest);
    const double middle = (std::min(low, 0.0) + std::max(high, 0.0)) / 2;
    Candidates<Bits> candidates;
    for (const int sixty_fourths : kSixtyFourths) {
        const double scale = static_cast<double>(start.scale) * sixty_fourths / 64;
        if (symmetric) {
            candidates.add(scale, static_cast<double>(start.zero_point), codes.used);
            continue;
        }
        const double zero_point = round_to_even((lowest + highest) / 2 - middle / scale);
        const double inside = std::min(std::max(zero_point, lowest), highest);
        for (const int shift : {-1, 0, 1}) candidates.add(scale, inside + shift, codes.used);
    }
    search.improve_the_most_promising(candidates, symmetric);
    return search.best();
}

#define COREPRESS_INSTANTIATE(Bits)                                                       \
    template Affine choose_affine<Bits>(double, double, const Codes&, bool);              \
    template bool is_coarse<Bits>(float);                                                 \
    template Affine round_scale(const BlockValues<Bits>&, const Codes&, Affine);          \
    template Affine choose_binary_affine<Bits>(double, double, const Codes&);             \
    template Affine search_binary_affine(const BlockValues<Bits>&, const Codes&, Affine); \
    template Affine search_affine(const BlockValues<Bits>&, double, double, const Codes&, bool, Affine);
COREPRESS_INSTANTIATE(uint16_t)
COREPRESS_INSTANTIATE(BFloat16Bits)
COREPRESS_INSTANTIATE(uint32_t)
#undef COREPRESS_INSTANTIATE

}  // namespace corepress
