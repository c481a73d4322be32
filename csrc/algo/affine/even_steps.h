// Weights at even distances, from the smallest to the largest value of each group or symmetric about zero:
// weight = scale * code + bias, all of it float32.
#pragma once

#include <cstdint>
#include <vector>

#include "core/span.h"
#include "kernels/table.h"

namespace corepress {

struct StepEncoding {
    int nbits;       // 1 to 8, symmetric 2 to 8
    bool symmetric;  // codes from 1 on, 2^(nbits-1) of which stands for zero
};

// One step per group, and the nearest code of each value. False if a value, or a step's reach, is not finite: then
// nothing in `steps` and `codes` holds.
bool encode_even_steps(const uint32_t* values, const GroupLayout& layout, StepEncoding encoding, int threads,
                       EvenStep* steps, uint8_t* codes);

// values[i] = code * scale + bias, rounded twice. Signed codes are in two's complement of 8 bits.
void decode_even_steps(const uint8_t* codes, const GroupLayout& layout, bool is_signed, const EvenStep* steps,
                       int threads, uint32_t* values);

ErrorSums sum_even_step_errors(const uint32_t* values, const uint8_t* codes, const GroupLayout& layout, bool is_signed,
                               const EvenStep* steps, int threads);

}  // namespace corepress
