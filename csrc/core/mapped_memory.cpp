#include "core/mapped_memory.h"

#if defined(__unix__) || defined(__APPLE__)

#include <cerrno>
#include <csignal>
#include <cstdint>

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <mutex>

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif

namespace corepress {

// A node of a list that only grows, so that the signal handler can walk it without a lock; free ones are used again.
struct GuardedRange {
    std::atomic<uintptr_t> begin{0}, end{0};  // end is 0 where it is free
    std::atomic<bool> lost{false};
    GuardedRange* next = nullptr;
};

namespace {

static_assert(std::atomic<uintptr_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free &&
              std::atomic<GuardedRange*>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

constexpr int most_handlers = 16;

std::mutex mutex;  // of all that is changed outside of the handler
std::atomic<GuardedRange*> ranges{nullptr};
uintptr_t page_size = 0;
struct sigaction previous[most_handlers];  // handlers found in place, the oldest first
std::atomic<int> previous_count{0};

bool replace_by_zeros(uintptr_t address) {
    for (GuardedRange* range = ranges.load(); range != nullptr; range = range->next) {
        const uintptr_t begin = range->begin.load(), end = range->end.load();
        if (address < begin || address >= end) continue;
        const uintptr_t page = address / page_size * page_size;
        const uintptr_t size = (end - page + page_size - 1) / page_size * page_size;
        void* const zeros =
            mmap(reinterpret_cast<void*>(page), size, PROT_READ, MAP_FIXED | MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
        if (zeros == MAP_FAILED) return false;
        range->lost.store(true);
        return true;
    }
    return false;
}

void on_bus_error(int number, siginfo_t* info, void*) {
    const int error = errno;
    const bool is_fault = info->si_code > 0;  // not sent by a process
    if (is_fault && replace_by_zeros(reinterpret_cast<uintptr_t>(info->si_addr))) {
        errno = error;
        return;
    }
    // Not ours. The handler before takes this one's place, and the access faults once more, now for that handler.
    const int index = previous_count.load() - 1;
    if (index >= 0) {
        previous_count.store(index);
        sigaction(number, &previous[index], nullptr);
    } else {
        std::signal(number, SIG_DFL);
    }
    if (!is_fault) raise(number);
    errno = error;
}

// Somebody else may have put a handler in the place of this one, or have taken it away.
void install() {
    struct sigaction current {};
    if (sigaction(SIGBUS, nullptr, &current) != 0) return;
    if ((current.sa_flags & SA_SIGINFO) != 0 && current.sa_sigaction == on_bus_error) return;
    const int count = previous_count.load();
    if (count == most_handlers) return;
    previous[count] = current;
    previous_count.store(count + 1);
    struct sigaction ours {};
    ours.sa_sigaction = on_bus_error;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&ours.sa_mask);
    sigaction(SIGBUS, &ours, nullptr);
}

GuardedRange* free_range() {
    for (GuardedRange* range = ranges.load(); range != nullptr; range = range->next)
        if (range->end.load() == 0) return range;
    auto* const range = new GuardedRange;
    range->next = ranges.load();
    ranges.store(range);
    return range;
}

}  // namespace

MemoryGuard::MemoryGuard(const void* begin, size_t size) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (page_size == 0) page_size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    install();
    range_ = free_range();
    const auto address = reinterpret_cast<uintptr_t>(begin);
    range_->lost.store(false);
    range_->begin.store(address);
    range_->end.store(address + size);
}

MemoryGuard::~MemoryGuard() {
    const std::lock_guard<std::mutex> lock(mutex);
    range_->end.store(0);
}

bool MemoryGuard::lost() const { return range_->lost.load(); }

}  // namespace corepress

#else

namespace corepress {

MemoryGuard::MemoryGuard(const void*, size_t) : range_(nullptr) {}
MemoryGuard::~MemoryGuard() = default;
bool MemoryGuard::lost() const { return range_ != nullptr; }

}  // namespace corepress

#endif
