// Memory that maps a file: reading it must not end the process when the file becomes shorter or cannot be read.
#pragma once

#include <cstddef>

namespace corepress {

struct GuardedRange;

// For as long as it lives, a page of this memory that the system cannot fill (SIGBUS) becomes zeros, with all that
// follow it. It must end before the memory is unmapped. Does nothing where mapped files cannot become shorter.
class MemoryGuard {
public:
    MemoryGuard(const void* begin, size_t size);
    ~MemoryGuard();
    MemoryGuard(const MemoryGuard&) = delete;
    MemoryGuard& operator=(const MemoryGuard&) = delete;

    // Whether a page became zeros.
    bool lost() const;

private:
    GuardedRange* range_;
};

}  // namespace corepress
