// Ending a call before it has a result: because of a signal, because another thread or the host asks for it.
#pragma once

#include <atomic>
#include <exception>

namespace corepress {

// Thrown out of a call that is to end. Memory is freed on the way; outputs hold anything.
struct Stopped : std::exception {
    const char* what() const noexcept override { return "the call was stopped"; }
};

// Asked now and then, on the thread of the call, whether that is to end.
struct StopPoll {
    bool (*ask)(void* context) = nullptr;
    void* context = nullptr;
};

// What ends the calls that know it; any thread may use it.
class StopFlag {
public:
    void raise() noexcept { raised_.store(true, std::memory_order_relaxed); }
    bool is_raised() const noexcept { return raised_.load(std::memory_order_relaxed); }

private:
    std::atomic<bool> raised_{false};
};

// While it lives, work of this thread ends when `flag` is raised, and asks `poll` every few hundredths of a second.
// The threads of a parallel loop share their caller's flag.
class StopScope {
public:
    explicit StopScope(StopFlag* flag, StopPoll poll = {}) noexcept;
    StopScope(const StopScope&) = delete;
    StopScope& operator=(const StopScope&) = delete;
    ~StopScope();

private:
    StopFlag* outer_flag_;
    StopPoll outer_poll_;
};

// The flag that this thread's work looks at, or null.
StopFlag* current_stop_flag() noexcept;

// Throws Stopped if this thread's work is to end. Costs a few nanoseconds, or some tens where there is a poll: for
// loops whose turns take microseconds, and often enough that a hundredth of a second passes between two of them at
// most.
void check_stop();

}  // namespace corepress
