// Rounding of weights in which the error of each column is made up for by those after it.
#pragma once

#include <cstdint>

#include "algo/calibrate/factorize.h"

namespace corepress {

// A weight read as `groups` matrices of rows by columns.
struct MatrixShape {
    int64_t groups;
    int64_t rows;
    int64_t columns;
};

enum class RoundingKind { kPalette, kAffine, kUnchanged };

// What weights are rounded to. The number of a weight's table, or scale, is that of its row plus that of its column.
struct Rounding {
    RoundingKind kind = RoundingKind::kUnchanged;
    const int32_t* row_tables = nullptr;     // [groups, rows]
    const int32_t* column_tables = nullptr;  // [groups, columns], or null for zeros
    int64_t tables = 0;
    // Palettes: [tables, entries, length], ascending; `length` rows that follow each other have one code.
    const double* entries = nullptr;
    int64_t entry_count = 0;  // a power of two
    int64_t length = 1;       // a divisor of kFeedbackRows
    // Affine grids: one for each table.
    const double* scales = nullptr;
    const double* zero_points = nullptr;
    double lowest = 0;
    double highest = 0;
};

struct FeedbackOptions {
    double dampening;
    int sweeps;       // over all columns after the first pass, each with the errors of all others
    bool continues;   // from the codes or values that are given, without a first pass
    bool moves_mask;  // as many zeros for 32 rows and columns as the mask has there, but chosen by what they are then
};

// Where the result goes: codes [groups, rows / length, columns], or values of the weight's format for kUnchanged.
template <typename Bits>
struct FeedbackResult {
    uint8_t* codes;
    Bits* values;
    uint8_t* mask;  // [groups, rows, columns], 0 where weights become zero, or null
};

// Returns tr(E H E^T) with the dampened H after the first pass; 0 without one. The factors are those that are kept,
// which must be of these moments, or are made.
template <typename Bits>
double feed_back(const Bits* weight, const MatrixShape& shape, const SecondMoments& moments, const Rounding& rounding,
                 const FeedbackOptions& options, int threads, const FeedbackResult<Bits>& result,
                 const KeptFactors* kept = nullptr);

// The pivots of the dampened moments, [groups, columns], in the columns' own order.
void column_pivots(const MatrixShape& shape, const SecondMoments& moments, double dampening, int threads,
                   double* pivots, const KeptFactors* kept = nullptr);

// Adds to the normal equations of each table for given codes, over the rows that use it: [tables, k, k] of P^T H P and
// [tables, k] of P^T H w, P the columns' codes as zeros and ones. Tables of rows alone, values instead of vectors.
template <typename Bits>
void sum_normal_equations(const Bits* weight, const MatrixShape& shape, const SecondMoments& moments,
                          const Rounding& rounding, const uint8_t* codes, double dampening, int threads,
                          double* products, double* targets);

}  // namespace corepress
