// Whole arrays in one pass: non-finite values, the error between two arrays, rounding to half precision.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "core/half.h"
#include "core/parallel.h"
#include "core/workspace.h"
#include "dispatch.h"
#include "kernels/table.h"

namespace corepress {

ErrorSums add_pieces(const std::vector<ErrorSums>& pieces);

// To nearest even, once. NaN becomes the quiet NaN of its sign.
void round_to_half(const float* values, int64_t count, int threads, uint16_t* halves);
void round_to_half(const double* values, int64_t count, int threads, uint16_t* halves);

template <typename Bits>
int64_t count_nonfinite(const Bits* values, int64_t count, int threads);

// The sums over what is left without pairs of equal infinities, whose difference is NaN.
template <typename Bits>
ErrorSums sum_unequal_errors(const Bits* first, const Bits* second, int64_t count) {
    std::vector<Bits> kept_first, kept_second;
    for (int64_t i = 0; i < count; ++i) {
        if (first[i] == second[i] && (first[i] & Format<Bits>::kMagnitude) == Format<Bits>::kInfinity) continue;
        kept_first.push_back(first[i]);
        kept_second.push_back(second[i]);
    }
    ErrorSums sums;
    kernels_for<Bits>(kernels()).add_errors(kept_first.data(), kept_second.data(),
                                            static_cast<int64_t>(kept_first.size()), &sums);
    return sums;
}

// The sums over `first` and what second(begin, end, space) gives, a pointer to the values [begin, end) that it may have
// put into `space`, a vector of any size. In double, each piece of kGrain pairs by itself and the pieces added in
// order.
// Where both are the same infinity, that is no error and adds to no sum.
template <typename Bits, typename Second>
ErrorSums sum_errors_of(const Bits* first, int64_t count, int threads, const Second& second) {
    std::vector<ErrorSums> pieces(static_cast<size_t>((count + kGrain - 1) / kGrain));
    WorkspacePool<std::vector<Bits>> spaces;
    parallel_pieces(count, kGrain, threads, [&](int64_t begin, int64_t end) {
        auto space = spaces.borrow();
        const Bits* const other = second(begin, end, *space);
        ErrorSums& sums = pieces[static_cast<size_t>(begin / kGrain)];
        kernels_for<Bits>(kernels()).add_errors(first + begin, other, end - begin, &sums);
        if (std::isnan(sums.squared_error)) sums = sum_unequal_errors(first + begin, other, end - begin);
    });
    return add_pieces(pieces);
}

template <typename Bits>
ErrorSums sum_errors(const Bits* first, const Bits* second, int64_t count, int threads);

}  // namespace corepress
