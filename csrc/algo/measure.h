// Facts about whole arrays: non-finite values, and the error between two arrays.
#pragma once

#include <cstdint>

#include "kernels/table.h"

namespace corepress {

template <typename Bits>
int64_t count_nonfinite(const Bits* values, int64_t count, int threads);

// Sums in double, each piece of kGrain pairs by itself and the pieces added in order.
template <typename Bits>
ErrorSums sum_errors(const Bits* first, const Bits* second, int64_t count, int threads);

}  // namespace corepress
