#include "algo/affine/even_steps.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "algo/common/key_ranges.h"
#include "algo/common/measure.h"
#include "core/blocks.h"
#include "core/half.h"
#include "core/parallel.h"
#include "dispatch.h"

namespace corepress {
namespace {

BlockLayout blocks_of(const GroupLayout& layout) {
    return BlockLayout({{1, layout.outer}, {layout.groups, layout.run}});
}

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
    const BlockLayout blocks = blocks_of(layout);
    const auto ranges = ranges_of_blocks(values, blocks, threads);
    if (!are_finite<uint32_t>(ranges.lowest.data(), ranges.highest.data(), layout.groups)) return false;
    for (size_t group = 0; group < ranges.lowest.size(); ++group) {
        const double lowest = value_of_key<uint32_t>(ranges.lowest[group]);
        const double highest = value_of_key<uint32_t>(ranges.highest[group]);
        if (!choose_step(lowest, highest, encoding, steps + group)) return false;
    }
    const CodeRange range{encoding.symmetric ? 1.0f : 0.0f, static_cast<float>((1 << encoding.nbits) - 1)};
    parallel_pieces(layout.size(), kGrain, threads, [&](int64_t begin, int64_t end) {
        walk_runs(blocks, begin, end, [&](int64_t group, int64_t offset, int64_t runs, int64_t length) {
            kernels().encode_steps(values + offset, runs, length, steps + group, range, codes + offset);
        });
    });
    return true;
}

void decode_even_steps(const uint8_t* codes, const GroupLayout& layout, bool is_signed, const EvenStep* steps,
                       int threads, uint32_t* values) {
    const BlockLayout blocks = blocks_of(layout);
    parallel_pieces(layout.size(), kGrain, threads, [&](int64_t begin, int64_t end) {
        walk_runs(blocks, begin, end, [&](int64_t group, int64_t offset, int64_t runs, int64_t length) {
            kernels().decode_steps(codes + offset, runs, length, steps + group, is_signed, values + offset);
        });
    });
}

ErrorSums sum_even_step_errors(const uint32_t* values, const uint8_t* codes, const GroupLayout& layout, bool is_signed,
                               const EvenStep* steps, int threads) {
    const BlockLayout blocks = blocks_of(layout);
    const auto decoded = [&](int64_t begin, int64_t end, std::vector<uint32_t>& space) {
        space.resize(static_cast<size_t>(end - begin));
        walk_runs(blocks, begin, end, [&](int64_t group, int64_t offset, int64_t runs, int64_t length) {
            kernels().decode_steps(codes + offset, runs, length, steps + group, is_signed,
                                   space.data() + (offset - begin));
        });
        return static_cast<const uint32_t*>(space.data());
    };
    return sum_errors_of<uint32_t>(values, layout.size(), threads, decoded);
}

}  // namespace corepress
