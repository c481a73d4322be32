// Tables of vectors, one per group of a tensor; vectors to codes, and back.
#pragma once

#include <cstdint>
#include <vector>

#include "algo/vectors/vector_group.h"
#include "core/blocks.h"
#include "core/span.h"
#include "kernels/table.h"

namespace corepress {

// Writes each group's table, luts: [groups, entries, length], in the weight's format: entries ascend, component by
// component; those not needed repeat the last. A group of no more distinct vectors than entries has these, exactly.
// Values must be finite.
template <typename Bits>
void fit_vector_tables(const VectorSource<Bits>& source, int entries, int threads, Bits* luts);

// Codes each vector by the nearest entry of its group's table, ties to the lower. packed: (vectors * nbits + 7) / 8
// bytes in the vectors' order.
template <typename Bits>
void palettize_vectors(const VectorSource<Bits>& source, int nbits, const Bits* luts, int threads, uint8_t* packed);

// Vectors of a tensor whose groups may be divided along any axes; a length of 1 is a scalar palette.
struct VectorBlocks {
    BlockLayout groups;  // of the vectors
    int64_t inner;
    int64_t length;
};

// The inverse.
template <typename Bits>
void depalettize_vectors(const uint8_t* packed, const VectorBlocks& layout, int nbits, const Bits* luts, int threads,
                         Bits* values);

// What sum_errors gives for `first` and the decoded values, added up in another order.
template <typename Bits>
ErrorSums sum_vector_errors(const Bits* first, const uint8_t* packed, const VectorBlocks& layout, int nbits,
                            const Bits* luts, int threads);

// k-means of `count` vectors of one tensor by itself. Writes centroids [k, length], ascending as above and not rounded
// to Bits, the codes, and returns the weighted sum of squared distances (in the units of the source's weights).
template <typename Bits>
double cluster_vectors(const VectorSource<Bits>& source, int64_t k, int threads, float* centroids, int32_t* codes);

}  // namespace corepress
