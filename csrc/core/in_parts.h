// Long loops that can be stopped.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/stop.h"

namespace corepress {

// Calls body(begin, end) for the parts of [0, count) in turn, and check_stop() between them: every some hundred
// microseconds, and not at all in short loops.
template <typename Body>
void for_each_part(int64_t count, Body&& body) {
    constexpr int64_t kPart = 1 << 15;
    for (int64_t begin = 0; begin < count; begin += kPart) {
        if (begin > 0) check_stop();
        body(begin, std::min(begin + kPart, count));
    }
}

}  // namespace corepress
