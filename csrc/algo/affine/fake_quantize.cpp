#include "algo/affine/fake_quantize.h"

#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "dispatch.h"

namespace corepress {
namespace {

// Parts of runs, none longer than kGrain: their bounds do not depend on the number of threads.
struct Parts {
    explicit Parts(const GroupLayout& given) : layout(given), of_run((given.run + kGrain - 1) / kGrain) {}

    int64_t count() const { return layout.outer * layout.groups * of_run; }

    // Calls body(part, group, offset, length) for all parts.
    template <typename Body>
    void for_each(int threads, const Body& body) const {
        const int64_t together = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, layout.run));
        parallel_pieces(count(), together, threads, [&](int64_t first, int64_t last) {
            for (int64_t part = first; part < last; ++part) {
                const int64_t run = part / of_run, begin = part % of_run * kGrain;
                body(part, run % layout.groups, run * layout.run + begin, std::min(kGrain, layout.run - begin));
            }
        });
    }

    GroupLayout layout;
    int64_t of_run;
};

}  // namespace

void fake_quantize_groups(const float* values, const GroupLayout& layout, const FakeStep* steps, int threads,
                          float* results) {
    Parts(layout).for_each(threads, [&](int64_t, int64_t group, int64_t offset, int64_t length) {
        kernels().fake_quantize(values + offset, length, steps[group], results + offset);
    });
}

void fake_quantize_gradient(const float* values, const float* gradient, const GroupLayout& layout,
                            const FakeStep* steps, int threads, float* results, FakeSlopes* sums) {
    const Parts parts(layout);
    std::vector<FakeSlopes> of_parts(sums == nullptr ? 0 : static_cast<std::size_t>(parts.count()));
    parts.for_each(threads, [&](int64_t part, int64_t group, int64_t offset, int64_t length) {
        kernels().fake_quantize_slopes(values + offset, gradient + offset, length, steps[group], results + offset,
                                       sums == nullptr ? nullptr : &of_parts[static_cast<std::size_t>(part)]);
    });
    if (sums == nullptr) return;
    std::fill_n(sums, layout.groups, FakeSlopes{});
    for (int64_t part = 0; part < parts.count(); ++part) {
        FakeSlopes& sum = sums[part / parts.of_run % layout.groups];
        sum.of_scale += of_parts[static_cast<std::size_t>(part)].of_scale;
        sum.outside += of_parts[static_cast<std::size_t>(part)].outside;
    }
}

}  // namespace corepress
