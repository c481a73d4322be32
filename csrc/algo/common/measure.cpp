#include "algo/common/measure.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/parallel.h"
#include "dispatch.h"

namespace corepress {

namespace {

// A float that rounds to half as the double does: its last bit is 1 if any of the bits that do not fit was. What is
// below or beyond the range of float is below or beyond that of half.
float half_way_from_double(double value) {
    constexpr uint64_t kLost = (uint64_t{1} << 29) - 1;
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits = (bits | ((bits & kLost) + kLost)) & ~kLost;
    memcpy(&value, &bits, sizeof value);
    return static_cast<float>(value);
}

void round_piece_to_half(const float* values, int64_t count, uint16_t* halves) {
    kernels().half.narrow(values, count, halves);
    for (int64_t i = 0; i < count; ++i) {  // instructions keep a NaN's payload
        if (values[i] != values[i]) halves[i] = half_from_float(values[i]);
    }
}

}  // namespace

void round_to_half(const float* values, int64_t count, int threads, uint16_t* halves) {
    parallel_pieces(count, kGrain, threads, [&](int64_t begin, int64_t end) {
        round_piece_to_half(values + begin, end - begin, halves + begin);
    });
}

void round_to_half(const double* values, int64_t count, int threads, uint16_t* halves) {
    WorkspacePool<std::vector<float>> spaces;
    parallel_pieces(count, kGrain, threads, [&](int64_t begin, int64_t end) {
        auto singles = spaces.borrow();
        singles->resize(static_cast<size_t>(end - begin));
        std::transform(values + begin, values + end, singles->begin(), half_way_from_double);
        round_piece_to_half(singles->data(), end - begin, halves + begin);
    });
}

template <typename Bits>
int64_t count_nonfinite(const Bits* values, int64_t count, int threads) {
    std::atomic<int64_t> total{0};
    parallel_pieces(count, kGrain, threads, [&](int64_t begin, int64_t end) {
        total += kernels_for<Bits>(kernels()).count_nonfinite(values + begin, end - begin);
    });
    return total;
}

ErrorSums add_pieces(const std::vector<ErrorSums>& pieces) {
    ErrorSums total;
    for (const ErrorSums& piece : pieces) {
        total.squared_error += piece.squared_error;
        total.squared_first += piece.squared_first;
        total.squared_second += piece.squared_second;
        total.product += piece.product;
        total.largest_error = std::max(total.largest_error, piece.largest_error);
    }
    if (std::isnan(total.squared_error)) total.largest_error = total.squared_error;
    return total;
}

template <typename Bits>
ErrorSums sum_errors(const Bits* first, const Bits* second, int64_t count, int threads) {
    return sum_errors_of(first, count, threads,
                         [second](int64_t begin, int64_t, std::vector<Bits>&) { return second + begin; });
}

template int64_t count_nonfinite(const uint16_t*, int64_t, int);
template int64_t count_nonfinite(const BFloat16Bits*, int64_t, int);
template int64_t count_nonfinite(const uint32_t*, int64_t, int);
template ErrorSums sum_errors(const uint16_t*, const uint16_t*, int64_t, int);
template ErrorSums sum_errors(const BFloat16Bits*, const BFloat16Bits*, int64_t, int);
template ErrorSums sum_errors(const uint32_t*, const uint32_t*, int64_t, int);

}  // namespace corepress
