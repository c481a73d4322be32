#include "algo/even_steps.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "algo/measure.h"
#include "core/extremes.h"
#include "core/half.h"
#include "core/parallel.h"
#include "dispatch.h"

namespace corepress {
namespace {

using Key = Format<uint32_t>::Key;

constexpr int64_t kRunsTogether = 1024;

// Calls body(group, offset, runs, length) for what lies in [begin, end): runs of neighbouring groups, or part of one.
template <typename Body>
void walk_runs(const GroupLayout& layout, int64_t begin, int64_t end, const Body& body) {
    for (int64_t offset = begin; offset < end;) {
        const int64_t run = offset / layout.run, group = run % layout.groups;
        const int64_t whole = offset == run * layout.run
                                  ? std::min({(end - offset) / layout.run, layout.groups - group, kRunsTogether})
                                  : 0;
        const int64_t length = whole > 0 ? layout.run : std::min((run + 1) * layout.run, end) - offset;
        const int64_t runs = std::max<int64_t>(whole, 1);
        body(group, offset, runs, length);
        offset += runs * length;
    }
}

class KeyRanges {
public:
    explicit KeyRanges(int64_t groups) : lowest_(static_cast<size_t>(groups)), highest_(static_cast<size_t>(groups)) {
        for (auto& key : lowest_) key.store(std::numeric_limits<Key>::max(), std::memory_order_relaxed);
        for (auto& key : highest_) key.store(std::numeric_limits<Key>::min(), std::memory_order_relaxed);
    }

    // Of neighbouring groups.
    void merge(const uint32_t* values, int64_t group, int64_t runs, int64_t length) {
        Key low[kRunsTogether], high[kRunsTogether];
        std::fill_n(low, runs, std::numeric_limits<Key>::max());
        std::fill_n(high, runs, std::numeric_limits<Key>::min());
        kernels().single.run_key_ranges(values, runs, length, low, high);
        for (int64_t i = 0; i < runs; ++i) {
            lower(lowest_[static_cast<size_t>(group + i)], low[i]);
            raise(highest_[static_cast<size_t>(group + i)], high[i]);
        }
    }

    bool is_finite(int64_t group) const { return is_finite_range<uint32_t>(low(group), high(group)); }
    double lowest(int64_t group) const { return value_of_key<uint32_t>(low(group)); }
    double highest(int64_t group) const { return value_of_key<uint32_t>(high(group)); }

private:
    Key low(int64_t group) const { return lowest_[static_cast<size_t>(group)].load(std::memory_order_relaxed); }
    Key high(int64_t group) const { return highest_[static_cast<size_t>(group)].load(std::memory_order_relaxed); }

    std::vector<std::atomic<Key>> lowest_, highest_;
};

// No range is too narrow: where a step is not even a subnormal number, the smallest is taken. False if what the largest
// code stands for, before the bias is added, is infinite.
bool choose_step(double lowest, double highest, StepEncoding encoding, EvenStep* step) {
    const int most = (1 << encoding.nbits) - 1, half = 1 << (encoding.nbits - 1);
    const double exact =
        encoding.symmetric ? std::max(-lowest, highest) / (half - 1) : (highest - lowest) / static_cast<double>(most);
    const double smallest = static_cast<double>(std::numeric_limits<float>::denorm_min());
    step->scale = exact > 0 ? static_cast<float>(std::max(exact, smallest)) : 1.0f;
    step->bias = encoding.symmetric ? -static_cast<float>(half) * step->scale : static_cast<float>(lowest) + 0.0f;
    return std::isfinite(step->scale * static_cast<float>(most)) && std::isfinite(step->bias);
}

}  // namespace

bool encode_even_steps(const uint32_t* values, const GroupLayout& layout, StepEncoding encoding, int threads,
                       EvenStep* steps, uint8_t* codes) {
    if (layout.size() == 0) {
        std::fill_n(steps, layout.groups, EvenStep{1, 0});
        return true;
    }
    KeyRanges ranges(layout.groups);
    parallel_pieces(layout.size(), kGrain, threads, [&](int64_t begin, int64_t end) {
        walk_runs(layout, begin, end, [&](int64_t group, int64_t offset, int64_t runs, int64_t length) {
            ranges.merge(values + offset, group, runs, length);
        });
    });
    for (int64_t group = 0; group < layout.groups; ++group) {
        if (!ranges.is_finite(group)) return false;
        if (!choose_step(ranges.lowest(group), ranges.highest(group), encoding, steps + group)) return false;
    }
    const CodeRange range{encoding.symmetric ? 1.0f : 0.0f, static_cast<float>((1 << encoding.nbits) - 1)};
    parallel_pieces(layout.size(), kGrain, threads, [&](int64_t begin, int64_t end) {
        walk_runs(layout, begin, end, [&](int64_t group, int64_t offset, int64_t runs, int64_t length) {
            kernels().encode_steps(values + offset, runs, length, steps + group, range, codes + offset);
        });
    });
    return true;
}

void decode_even_steps(const uint8_t* codes, const GroupLayout& layout, bool is_signed, const EvenStep* steps,
                       int threads, uint32_t* values) {
    parallel_pieces(layout.size(), kGrain, threads, [&](int64_t begin, int64_t end) {
        walk_runs(layout, begin, end, [&](int64_t group, int64_t offset, int64_t runs, int64_t length) {
            kernels().decode_steps(codes + offset, runs, length, steps + group, is_signed, values + offset);
        });
    });
}

ErrorSums sum_even_step_errors(const uint32_t* values, const uint8_t* codes, const GroupLayout& layout, bool is_signed,
                               const EvenStep* steps, int threads) {
    const auto decoded = [&](int64_t begin, int64_t end, std::vector<uint32_t>& space) {
        space.resize(static_cast<size_t>(end - begin));
        walk_runs(layout, begin, end, [&](int64_t group, int64_t offset, int64_t runs, int64_t length) {
            kernels().decode_steps(codes + offset, runs, length, steps + group, is_signed,
                                   space.data() + (offset - begin));
        });
        return static_cast<const uint32_t*>(space.data());
    };
    return sum_errors_of<uint32_t>(values, layout.size(), threads, decoded);
}

}  // namespace corepress
