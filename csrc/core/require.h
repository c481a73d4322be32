// User errors: a message built from parts, thrown as std::invalid_argument (a ValueError in Python).
#pragma once

#include <sstream>
#include <stdexcept>

namespace corepress {

template <typename... Parts>
void require(bool condition, const Parts&... parts) {
    if (condition) return;
    std::ostringstream message;
    (message << ... << parts);
    throw std::invalid_argument(message.str());
}

}  // namespace corepress
