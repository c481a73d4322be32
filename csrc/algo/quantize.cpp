#include "algo/quantize.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "core/half.h"
#include "core/parallel.h"
#include "dispatch.h"

namespace corepress {
namespace {

// Short runs that repeat are taken by whole rows, with one Affine per element of the row.
bool by_rows(const GroupLayout& layout) { return layout.run < 32 && layout.outer >= 8; }

template <typename Value>
void lower(std::atomic<Value>& target, Value value) {
    Value seen = target.load(std::memory_order_relaxed);
    while (value < seen && !target.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
    }
}

template <typename Value>
void raise(std::atomic<Value>& target, Value value) {
    Value seen = target.load(std::memory_order_relaxed);
    while (value > seen && !target.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
    }
}

template <typename Bits>
struct Ranges {
    using Key = typename Format<Bits>::Key;
    std::vector<std::atomic<Key>> lowest, highest;

    explicit Ranges(int64_t groups) : lowest(static_cast<size_t>(groups)), highest(static_cast<size_t>(groups)) {
        for (auto& key : lowest) key.store(std::numeric_limits<Key>::max(), std::memory_order_relaxed);
        for (auto& key : highest) key.store(std::numeric_limits<Key>::min(), std::memory_order_relaxed);
    }
    void merge(int64_t group, Key low, Key high) {
        lower(lowest[static_cast<size_t>(group)], low);
        raise(highest[static_cast<size_t>(group)], high);
    }
};

// Calls runs(group, offset, length) for parts of runs, or, where short runs repeat, rows(offset, count) for whole rows.
template <typename Runs, typename Rows>
void for_each_part(const GroupLayout& layout, int threads, const Runs& runs, const Rows& rows) {
    if (by_rows(layout)) {
        const int64_t grain = std::max<int64_t>(1, kGrain / layout.row_length());
        parallel_pieces(layout.outer, grain, threads,
                        [&](int64_t begin, int64_t end) { rows(begin * layout.row_length(), end - begin); });
    } else {
        parallel_pieces(layout.size(), kGrain, threads,
                        [&](int64_t begin, int64_t end) { for_each_run(layout, begin, end, runs); });
    }
}

template <typename Bits>
void find_ranges(const Bits* values, const GroupLayout& layout, int threads, Ranges<Bits>& ranges) {
    using Key = typename Format<Bits>::Key;
    const auto& kernels = kernels_for<Bits>(corepress::kernels());
    const auto runs = [&](int64_t group, int64_t offset, int64_t length) {
        const KeyRange range = kernels.key_range(values + offset, length);
        ranges.merge(group, static_cast<Key>(range.lowest), static_cast<Key>(range.highest));
    };
    const auto rows = [&](int64_t offset, int64_t count) {
        const int64_t columns = layout.row_length();
        std::vector<Key> lowest(static_cast<size_t>(columns), std::numeric_limits<Key>::max());
        std::vector<Key> highest(static_cast<size_t>(columns), std::numeric_limits<Key>::min());
        kernels.column_key_range(values + offset, count, columns, lowest.data(), highest.data());
        for (int64_t group = 0; group < layout.groups; ++group) {
            const auto first = static_cast<std::ptrdiff_t>(group * layout.run), last = first + layout.run;
            ranges.merge(group, *std::min_element(lowest.begin() + first, lowest.begin() + last),
                         *std::max_element(highest.begin() + first, highest.begin() + last));
        }
    };
    for_each_part(layout, threads, runs, rows);
}

template <typename Bits>
float next_below(float scale) {
    return Format<Bits>::to_float(static_cast<Bits>(Format<Bits>::from_float(scale) - 1));
}

template <typename Bits>
bool decodes_finite(float scale, double codes) {
    const float value = static_cast<float>(codes) * scale;
    return (Format<Bits>::from_float(value) & Format<Bits>::kMagnitude) < Format<Bits>::kInfinity;
}

// The scale in the weight's format for values in [low, high], and where zero lies. Done in double: in the weight's own
// arithmetic high - low overflows for halves from 32,768 on. A scale that would be 0 becomes the smallest positive
// number, which represents such values exactly or as closely as the format can; one whose extreme codes would decode to
// infinity goes one step down.
template <typename Bits>
Affine choose_affine(double low, double high, IntegerRange range, bool symmetric) {
    const double codes = range.highest - range.lowest;
    Affine affine{1, 0};
    double least_code = range.lowest, most_code = range.highest;
    if (symmetric) {
        high = std::max(std::fabs(low), std::fabs(high));
        low = -high;
        affine.zero_point = static_cast<float>((range.lowest + range.highest + (range.is_signed ? 0 : 1)) / 2);
    } else {
        low = std::min(low, 0.0);
        high = std::max(high, 0.0);
    }
    if (high == low) return affine;  // all zero
    if (!symmetric) {
        const double zero_point = std::nearbyint((range.lowest * high - range.highest * low) / (high - low));
        affine.zero_point = static_cast<float>(
            std::min(std::max(zero_point, static_cast<double>(range.lowest)), static_cast<double>(range.highest)));
    }
    least_code -= static_cast<double>(affine.zero_point);
    most_code -= static_cast<double>(affine.zero_point);
    // The range is rounded to the format first, as coremltools does, unless that overflows: a scale one step off could
    // by chance have a larger error than coremltools'.
    const Bits rounded = Format<Bits>::from_float(static_cast<float>(high - low));
    const double range_of_values = rounded < Format<Bits>::kInfinity ? Format<Bits>::to_float(rounded) : high - low;
    const Bits bits = Format<Bits>::from_float(static_cast<float>(range_of_values / codes));
    affine.scale = Format<Bits>::to_float(std::max(bits, Format<Bits>::kMinimum));
    while (!decodes_finite<Bits>(affine.scale, least_code) || !decodes_finite<Bits>(affine.scale, most_code)) {
        affine.scale = next_below<Bits>(affine.scale);
    }
    return affine;
}

// One Affine per element of a row, where whole rows are taken.
std::vector<Affine> spread(const std::vector<Affine>& affines, const GroupLayout& layout) {
    std::vector<Affine> columns;
    if (!by_rows(layout)) return columns;
    columns.reserve(static_cast<size_t>(layout.row_length()));
    for (const Affine& affine : affines) columns.insert(columns.end(), static_cast<size_t>(layout.run), affine);
    return columns;
}

}  // namespace

template <typename Bits>
void quantize(const Bits* values, const GroupLayout& layout, IntegerRange range, bool symmetric, int threads,
              Bits* scales, uint8_t* zero_points, uint8_t* codes) {
    if (layout.size() == 0) return;
    Ranges<Bits> ranges(layout.groups);
    find_ranges(values, layout, threads, ranges);
    std::vector<Affine> affines(static_cast<size_t>(layout.groups));
    for (size_t group = 0; group < affines.size(); ++group) {
        const auto value = [](const auto& key) {
            return static_cast<double>(Format<Bits>::to_float(bits_from_key<Bits>(key.load())));
        };
        affines[group] =
            choose_affine<Bits>(value(ranges.lowest[group]), value(ranges.highest[group]), range, symmetric);
        scales[group] = Format<Bits>::from_float(affines[group].scale);
        zero_points[group] = static_cast<uint8_t>(static_cast<int>(affines[group].zero_point));
    }
    const CodeRange code_range{static_cast<float>(range.lowest), static_cast<float>(range.highest)};
    const auto& kernels = kernels_for<Bits>(corepress::kernels());
    const std::vector<Affine> columns = spread(affines, layout);
    const auto runs = [&](int64_t group, int64_t offset, int64_t length) {
        kernels.quantize(values + offset, length, affines[static_cast<size_t>(group)], code_range, codes + offset);
    };
    const auto rows = [&](int64_t offset, int64_t count) {
        kernels.quantize_columns(values + offset, count, layout.row_length(), columns.data(), code_range,
                                 codes + offset);
    };
    for_each_part(layout, threads, runs, rows);
}

template <typename Bits>
void dequantize(const uint8_t* codes, const GroupLayout& layout, bool is_signed, const Bits* scales,
                const uint8_t* zero_points, int threads, Bits* values) {
    if (layout.size() == 0) return;
    std::vector<Affine> affines(static_cast<size_t>(layout.groups));
    for (size_t group = 0; group < affines.size(); ++group) {
        const uint8_t byte = zero_points == nullptr ? uint8_t{0} : zero_points[group];
        const int zero_point = is_signed ? static_cast<int8_t>(byte) : byte;
        affines[group] = {Format<Bits>::to_float(scales[group]), static_cast<float>(zero_point)};
    }
    const auto& kernels = kernels_for<Bits>(corepress::kernels());
    const std::vector<Affine> columns = spread(affines, layout);
    const auto runs = [&](int64_t group, int64_t offset, int64_t length) {
        kernels.dequantize(codes + offset, length, affines[static_cast<size_t>(group)], is_signed, values + offset);
    };
    const auto rows = [&](int64_t offset, int64_t count) {
        kernels.dequantize_columns(codes + offset, count, layout.row_length(), columns.data(), is_signed,
                                   values + offset);
    };
    for_each_part(layout, threads, runs, rows);
}

template void quantize(const uint16_t*, const GroupLayout&, IntegerRange, bool, int, uint16_t*, uint8_t*, uint8_t*);
template void quantize(const uint32_t*, const GroupLayout&, IntegerRange, bool, int, uint32_t*, uint8_t*, uint8_t*);
template void dequantize(const uint8_t*, const GroupLayout&, bool, const uint16_t*, const uint8_t*, int, uint16_t*);
template void dequantize(const uint8_t*, const GroupLayout&, bool, const uint32_t*, const uint8_t*, int, uint32_t*);

}  // namespace corepress
