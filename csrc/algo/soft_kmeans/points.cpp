#include "algo/soft_kmeans/points.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <type_traits>

#include "algo/soft_kmeans/nearest.h"
#include "core/stop.h"

namespace corepress {
namespace {

constexpr int64_t kFewest = 4096;  // values that are worth points
constexpr int64_t kMostNodes = int64_t{1} << 20;
constexpr double kStepsOfWidth = 64;  // points within the width of a step from one entry to the next
constexpr int kFraction = 20;         // bits of a share in a count

// Sums of integers, whose order is free: each thread has its own part of the values.
template <typename Count>
std::vector<int64_t> counted(int64_t values, int64_t cells, int threads, const Count& count) {
    const int64_t parts = std::max(int64_t{1}, std::min(int64_t{threads}, values / (cells + 1) + 1));
    std::vector<std::vector<int64_t>> sums(static_cast<std::size_t>(parts));
    parallel_for(parts, threads, [&](int64_t part) {
        auto& own = sums[static_cast<std::size_t>(part)];
        own.assign(static_cast<std::size_t>(cells), 0);
        const int64_t end = values * (part + 1) / parts;
        for (int64_t i = values * part / parts; i < end; i += kGrain) {
            check_stop();
            count(i, std::min(end, i + kGrain), own.data());
        }
    });
    for (std::size_t part = 1; part < sums.size(); ++part) {
        for (std::size_t cell = 0; cell < sums[0].size(); ++cell) sums[0][cell] += sums[part][cell];
    }
    return std::move(sums[0]);
}

struct Range {
    double lowest = std::numeric_limits<double>::infinity();
    double highest = -std::numeric_limits<double>::infinity();
    bool finite = true;
};

template <typename Bits>
Range range_of(const Bits* values, int64_t count, int threads) {
    const int64_t pieces = (count + kGrain - 1) / kGrain;
    std::vector<Range> ranges(static_cast<std::size_t>(pieces));
    parallel_for(pieces, threads, [&](int64_t piece) {
        check_stop();
        Range& range = ranges[static_cast<std::size_t>(piece)];
        float lowest = std::numeric_limits<float>::infinity(), highest = -lowest;
        bool finite = true;
        const int64_t end = std::min(count, (piece + 1) * kGrain);
        for (int64_t i = piece * kGrain; i < end; ++i) {
            const float value = Format<Bits>::to_float(values[i]);
            lowest = value < lowest ? value : lowest;
            highest = value > highest ? value : highest;
            finite = finite && value - value == 0;
        }
        range = {lowest, highest, finite};
    });
    Range all;
    for (const Range& range : ranges) {
        all.lowest = std::min(all.lowest, range.lowest);
        all.highest = std::max(all.highest, range.highest);
        all.finite = all.finite && range.finite;
    }
    return all;
}

// A power of two by which gradients become integers whose sums do not overflow; 0 if they are not finite.
double scale_of(double largest, int64_t count) {
    if (!(largest < std::numeric_limits<double>::infinity())) return 0;
    int exponent = 0;
    (void)std::frexp(largest, &exponent);
    int bits = 61;
    while (count > 0) {
        --bits;
        count >>= 1;
    }
    return largest > 0 ? std::ldexp(1.0, bits - exponent) : 1;
}

template <typename Bits>
void count_patterns(const SoftGroup<Bits>& group, const Bits* gradient, double scale, int threads, StandIns& out) {
    const bool has_slopes = gradient != nullptr;
    const auto sums = counted(group.count, int64_t{kPatterns} * (has_slopes ? 2 : 1), threads,
                              [&](int64_t begin, int64_t end, int64_t* cells) {
                                  for (int64_t i = begin; i < end; ++i) {
                                      const auto pattern = static_cast<int64_t>(group.values[i]);
                                      ++cells[pattern];
                                      if (!has_slopes) continue;
                                      const double slope = static_cast<double>(Format<Bits>::to_float(gradient[i]));
                                      cells[kPatterns + pattern] += static_cast<int64_t>(slope * scale);
                                  }
                              });
    out.places.assign(static_cast<std::size_t>(kPatterns), 0);
    const auto take = [&](int64_t pattern) {
        const auto count = sums[static_cast<std::size_t>(pattern)];
        if (count == 0) return;
        out.places[static_cast<std::size_t>(pattern)] = static_cast<int32_t>(out.values.size());
        out.values.push_back(static_cast<double>(Format<Bits>::to_float(static_cast<Bits>(pattern))));
        out.counts.push_back(static_cast<double>(count));
        if (has_slopes) {
            out.slopes.push_back(static_cast<double>(sums[static_cast<std::size_t>(kPatterns + pattern)]) / scale);
        }
    };
    for (int64_t pattern = kPatterns - 1; pattern >= kPatterns / 2; --pattern) take(pattern);
    for (int64_t pattern = 0; pattern < kPatterns / 2; ++pattern) take(pattern);
}

template <typename Bits>
void count_nodes(const SoftGroup<Bits>& group, const Bits* gradient, double scale, int64_t nodes, int threads,
                 StandIns& out) {
    const bool has_slopes = gradient != nullptr;
    constexpr double kWhole = static_cast<double>(int64_t{1} << kFraction);
    out.values.resize(static_cast<std::size_t>(nodes));
    for (int64_t i = 0; i < nodes; ++i) {
        out.values[static_cast<std::size_t>(i)] = out.first + static_cast<double>(i) * out.step;
    }
    const auto sums =
        counted(group.count, has_slopes ? 2 * nodes : nodes, threads, [&](int64_t begin, int64_t end, int64_t* cells) {
            for (int64_t i = begin; i < end; ++i) {
                const Between between = place_of(out, group.values[i]);
                const auto part = static_cast<int64_t>(between.share * kWhole);
                cells[between.place] += (int64_t{1} << kFraction) - part;
                cells[between.place + 1] += part;
                if (!has_slopes) continue;
                const double slope = static_cast<double>(Format<Bits>::to_float(gradient[i])) * scale;
                const auto later = static_cast<int64_t>(slope * between.share);
                cells[nodes + between.place] += static_cast<int64_t>(slope) - later;
                cells[nodes + between.place + 1] += later;
            }
        });
    for (int64_t i = 0; i < nodes; ++i) {
        out.counts.push_back(static_cast<double>(sums[static_cast<std::size_t>(i)]) / kWhole);
        if (has_slopes) out.slopes.push_back(static_cast<double>(sums[static_cast<std::size_t>(nodes + i)]) / scale);
    }
}

}  // namespace

RoundEntries::RoundEntries(const double* centroids, int64_t count, int64_t length, const SoftOptions& options)
    : count_(count),
      length_(length),
      threshold_(options.threshold),
      per_temperature_(1 / options.temperature),
      smallest_(options.smallest),
      order_(static_cast<std::size_t>(count)) {
    constexpr double kPerE = 0x1.78b56362cef38p-2;
    double share = 1;
    int64_t exponent = 1;  // one more than needed, for what rounding may do
    for (; share >= smallest_ && exponent < 700; ++exponent) share *= kPerE;
    reach_ = options.temperature * static_cast<double>(exponent) + std::fabs(threshold_);
    std::iota(order_.begin(), order_.end(), int64_t{0});
    const bool ascend = std::all_of(centroids, centroids + count * length, [](double entry) { return entry == entry; });
    if (!ascend) reach_ = std::numeric_limits<double>::infinity();
    if (length == 1 && ascend) {
        std::stable_sort(order_.begin(), order_.end(),
                         [&](int64_t a, int64_t b) { return centroids[a] < centroids[b]; });
    }
    values_ = ordered(centroids, length);
    special_ = std::find(order_.begin(), order_.end(), int64_t{0}) - order_.begin();
}

std::pair<int64_t, int64_t> RoundEntries::near(double lowest, double highest) const {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    if (length_ != 1 || count_ <= 2 || !(highest - lowest < kInfinity) || !(reach_ < kInfinity)) return {0, count_};
    const auto distance_to = [&](double number) {
        const auto after = std::lower_bound(values_.begin(), values_.end(), number);
        double least = std::numeric_limits<double>::infinity();
        if (after != values_.end()) least = *after - number;
        if (after != values_.begin()) least = std::min(least, number - *(after - 1));
        return least;
    };
    const double farthest = std::min(distance_to(lowest), distance_to(highest)) + (highest - lowest);
    const double limit = std::sqrt(farthest * farthest + reach_);
    const auto first = std::lower_bound(values_.begin(), values_.end(), lowest - limit);
    const auto last = std::upper_bound(values_.begin(), values_.end(), highest + limit);
    if (!(first < last)) return {0, count_};
    return {first - values_.begin(), last - values_.begin()};
}

std::vector<double> RoundEntries::ordered(const double* numbers, int64_t width) const {
    std::vector<double> out;
    out.reserve(static_cast<std::size_t>(count_ * width));
    for (const int64_t entry : order_) out.insert(out.end(), numbers + entry * width, numbers + (entry + 1) * width);
    return out;
}

void RoundEntries::restore(const double* ordered, int64_t width, double* numbers) const {
    for (int64_t i = 0; i < count_; ++i) {
        std::copy_n(ordered + i * width, width, numbers + order_[static_cast<std::size_t>(i)] * width);
    }
}

double widest_gap(const double* centroids, int64_t count, double threshold) {
    double gap = std::numeric_limits<double>::infinity();
    if (std::any_of(centroids, centroids + count, [](double entry) { return entry != entry; })) return gap;
    const std::vector<RulingEntry> ruling = ruling_entries(centroids, count, threshold);
    gap = 0;
    for (std::size_t i = 1; i < ruling.size(); ++i) gap = std::max(gap, ruling[i].value - ruling[i - 1].value);
    return gap;
}

bool are_close(const StandIns& points, double gap, const SoftOptions& options) {
    constexpr double kLeast = kStepsOfWidth * 2 / 3;
    return points.step * 2 * gap * kLeast <= options.temperature;
}

template <typename Bits>
StandIns stand_ins(const SoftGroup<Bits>& group, const Bits* gradient, double gap, const SoftOptions& options,
                   int threads) {
    StandIns out;
    if (options.exact || group.length != 1 || group.count < kFewest) return out;
    double scale = 1;
    if (gradient != nullptr) {
        const Range slopes = range_of(gradient, group.count, threads);
        scale = slopes.finite ? scale_of(std::max(-slopes.lowest, slopes.highest), group.count) : 0;
        if (scale == 0) return out;
    }
    const Range range = range_of(group.values, group.count, threads);
    if (!range.finite) return out;
    if constexpr (!std::is_same_v<Bits, uint32_t>) {
        count_patterns(group, gradient, scale, threads, out);
    } else {
        const double extent = range.highest - range.lowest;
        const double steps = extent * 2 * gap / options.temperature * kStepsOfWidth;
        if (!(extent > 0) || !(steps < static_cast<double>(std::min(kMostNodes, group.count / 2)))) return out;
        const int64_t nodes = std::max(kFewest / 2, static_cast<int64_t>(steps)) + 2;
        out.first = range.lowest;
        out.step = extent / static_cast<double>(nodes - 2);
        count_nodes(group, gradient, scale, nodes, threads, out);
    }
    return out;
}

template StandIns stand_ins(const SoftGroup<uint16_t>&, const uint16_t*, double, const SoftOptions&, int);
template StandIns stand_ins(const SoftGroup<BFloat16Bits>&, const BFloat16Bits*, double, const SoftOptions&, int);
template StandIns stand_ins(const SoftGroup<uint32_t>&, const uint32_t*, double, const SoftOptions&, int);

}  // namespace corepress
