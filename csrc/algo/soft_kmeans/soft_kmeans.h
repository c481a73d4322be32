// Differentiable k-means (DKM: Cho et al., ICLR 2022): values as means of entries, and the exact gradient of that.
//
// A round assigns each value w_i to the entries c_j of its palette in part,
//
//     p_ij = softmax_j(-|w_i - c_j|^2 / temperature),   a_ij = max(p_ij, smallest),
//
// and moves the entries: c'_j = sum_i a_ij w_i / S_j, S_j = sum_i a_ij. After the last round value i becomes
// y_i = sum_j a_ij c'_j. What the gradient needs of all this is the entries and the sums of each round: 2 k numbers.
// Shares are computed again, a few values at a time, so that nothing of size n x k is ever stored.
//
// With g = dL/dy, H_j = sum_i g_i a_ij and hs_j = H_j / S_j, for each round, the last one first:
//
//     u_ij = [p_ij >= smallest] (hs_j (w_i - c'_j) + [last round] g_i c'_j)
//     z_ij = p_ij (u_ij - sum_l p_il u_il)
//     dL/dw_i += sum_j hs_j a_ij - 2 / temperature sum_j z_ij (w_i - c_j)
//     H_j := 2 / temperature sum_i z_ij (w_i - c_j)
//
// Given the entries, all this is a function of the value, and linear in g_i: so one computation serves all weights of a
// value (those of 16 bits), or points between which results are interpolated (those of 32 bits).
#pragma once

#include <cstdint>

namespace corepress {

struct SoftOptions {
    double temperature;
    double smallest;   // weight of an entry
    double threshold;  // what squared distances to entry 0 are less
    double tolerance;  // rounds end where the sum of squared distances changes by no more
    int64_t rounds;
    bool enforce_zero;  // entry 0 is 0
    bool exact;         // no points stand for many values
};

// The values of a group, [count, length].
template <typename Bits>
struct SoftGroup {
    const Bits* values;
    int64_t count;
    int64_t length;
    int64_t entries;
};

// Entries before each round and after the last, [rounds + 1, entries, length]; sums of weights, [rounds, entries].
struct SoftTape {
    double* centroids;
    double* sums;
};

// Writes the values' means, and the tape, whose first entries are given. Returns how many rounds there were.
template <typename Bits>
int64_t soft_forward(const SoftGroup<Bits>& group, const SoftOptions& options, const SoftTape& tape, int threads,
                     Bits* results);

// Writes the gradient by the values from that by the means.
template <typename Bits>
void soft_backward(const SoftGroup<Bits>& group, const Bits* gradient, const SoftOptions& options, int64_t rounds,
                   const SoftTape& tape, int threads, Bits* results);

}  // namespace corepress
