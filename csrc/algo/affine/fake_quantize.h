// Quantization in training: values rounded to what integers express, and the gradients of learned steps (LSQ+).
#pragma once

#include <cstdint>

#include "core/span.h"
#include "kernels/table.h"

namespace corepress {

// A step for each group of the layout.
void fake_quantize_groups(const float* values, const GroupLayout& layout, const FakeStep* steps, int threads,
                          float* results);

// The gradient by the values, and, unless it is null, what `sums` holds for each group.
void fake_quantize_gradient(const float* values, const float* gradient, const GroupLayout& layout,
                            const FakeStep* steps, int threads, float* results, FakeSlopes* sums);

}  // namespace corepress
