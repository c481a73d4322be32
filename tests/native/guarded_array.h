// An array between pages without access: a step beyond either end stops the program.
#pragma once

#ifdef _WIN32
#define NOMINMAX
#include <windows.h>
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "core/span.h"

namespace corepress {

// Pages that can be read and written, the first and the last of which cannot.
class GuardedPages {
public:
    explicit GuardedPages(size_t bytes) {
        const size_t page = page_size();
        size_ = (bytes + page - 1) / page * page + 2 * page;
        if (!reserve() || !forbid(begin_, page) || !forbid(begin_ + size_ - page, page)) {
            std::fputs("no memory with guarded pages\n", stderr);
            std::abort();
        }
        end_ = begin_ + size_ - page;
    }
    GuardedPages(const GuardedPages&) = delete;
    GuardedPages& operator=(const GuardedPages&) = delete;
#ifdef _WIN32
    ~GuardedPages() { VirtualFree(begin_, 0, MEM_RELEASE); }
#else
    ~GuardedPages() { munmap(begin_, size_); }
#endif

    char* end() const { return end_; }

private:
#ifdef _WIN32
    static size_t page_size() {
        SYSTEM_INFO info;
        GetSystemInfo(&info);
        return info.dwPageSize;
    }
    bool reserve() {
        begin_ = static_cast<char*>(VirtualAlloc(nullptr, size_, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE));
        return begin_ != nullptr;
    }
    static bool forbid(char* page, size_t size) {
        DWORD before;
        return VirtualProtect(page, size, PAGE_NOACCESS, &before) != 0;
    }
#else
    static size_t page_size() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }
    bool reserve() {
        void* const memory = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
        begin_ = static_cast<char*>(memory);
        return memory != MAP_FAILED;
    }
    static bool forbid(char* page, size_t size) { return mprotect(page, size, PROT_NONE) == 0; }
#endif

    size_t size_;
    char* begin_;
    char* end_;
};

// An array that ends where memory without access begins.
template <typename T>
class Guarded {
public:
    explicit Guarded(int64_t count)
        : size_(count),
          pages_(static_cast<size_t>(count) * sizeof(T)),
          data_(reinterpret_cast<T*>(pages_.end()) - count) {}

    T* data() const { return data_; }
    int64_t size() const { return size_; }
    Span<T> span() const { return {data_, size_}; }
    Span<const T> view() const { return {data_, size_}; }

private:
    int64_t size_;
    GuardedPages pages_;
    T* data_;
};

}  // namespace corepress
