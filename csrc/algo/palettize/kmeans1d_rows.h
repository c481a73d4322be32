// Exact k-means of plain numbers, row by row.
#pragma once

#include <cstdint>

#include "core/span.h"

namespace corepress {

// For each of `rows` rows of `columns` >= 1 finite values and each k of `ks`: the cluster of each value, ascending with
// it, the clusters' means (those not needed repeat the largest), and the weighted sum of squared distances.
// weights: not negative, some positive in each row, or null for 1 each. codes[j]: [rows, columns], centroids[j]:
// [rows, ks[j]], inertia[j]: [rows].
struct RowClusters {
    int32_t* codes;
    double* centroids;
    double* inertia;
};
void kmeans1d_rows(const double* values, const double* weights, int64_t rows, int64_t columns, Span<const int> ks,
                   int threads, Span<const RowClusters> results);

}  // namespace corepress
