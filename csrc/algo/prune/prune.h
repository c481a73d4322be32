// Magnitude pruning and the sparse form.
#pragma once

#include <cstdint>

#include "algo/common/measure.h"
#include "core/span.h"

namespace corepress {

// A magnitude, as bits, and how many values have a larger one.
template <typename Bits>
struct Magnitude {
    Bits bits;
    int64_t above;
};

// The magnitude of rank `rank` (0 the smallest) among count > rank values; NaNs are the largest. With `noise`, what it
// is once all values up to that magnitude are zero is found on the way if the values have 16 bits.
template <typename Bits>
Magnitude<Bits> magnitude_of_rank(const Bits* values, int64_t count, int64_t rank, int threads, Noise* noise = nullptr);

// What pruning found. Where values are not finite, mask and kept values are of no use.
struct Pruned {
    int64_t ones = 0;  // of the mask
    bool is_finite = true;
};

// What a sample says that the number of magnitudes above a threshold is most likely not more than. Memory for so many
// is used again by the next call, where memory for all values would be asked of the system, page by page.
template <typename Bits>
int64_t most_likely_above(const Bits* values, int64_t count, Bits threshold);

// Sets bit i of mask, LSB first, where |values[i]| > threshold, a magnitude's bits, and writes those values in order.
// If `kept` is too small for them, what it holds is of no use, and encode_sparse writes them.
template <typename Bits>
Pruned prune_by_magnitude(const Bits* values, int64_t count, Bits threshold, int threads, uint8_t* mask,
                          Span<Bits> kept);

// Writes the values whose bit is 1, in order, as far as `kept` has room for them. kept: as many as the mask has ones,
// unless that changed since they were counted.
template <typename Bits>
void encode_sparse(const Bits* values, int64_t count, const uint8_t* mask, int threads, Span<Bits> kept);

// The inverse: zeros where the bit is 0, and for ones beyond those of `kept`.
template <typename Bits>
void decode_sparse(Span<const Bits> kept, const uint8_t* mask, int64_t count, int threads, Bits* values);

// What sum_errors says of `first` and the decoded values, which are never all in memory.
template <typename Bits>
ErrorSums sum_sparse_errors(const Bits* first, Span<const Bits> kept, const uint8_t* mask, int64_t count, int threads);

}  // namespace corepress
