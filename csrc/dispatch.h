// Which compiled level of the leaf loops is in use.
#pragma once

#include <string>
#include <vector>

#include "kernels/table.h"

namespace corepress {

// Levels that this machine can run, best last.
std::vector<std::string> simd_levels();

// The table in use: the best level, or the one that COREPRESS_SIMD named when the library was loaded.
const KernelTable& kernels();

// Switches level; throws for one that is unknown or that this machine can't run.
void set_simd_level(const std::string& level);

}  // namespace corepress
