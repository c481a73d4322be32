// Threads are started per call: tens of microseconds beside milliseconds of work, and nothing to break at fork.
#include "core/parallel.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/cpu_quota.h"
#include "core/require.h"
#include "core/stop.h"

#ifdef __linux__
#include <sched.h>
#endif

namespace corepress {
namespace {

thread_local bool inside_region = false;

int schedulable_cpus() {
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int available_cpus() {
    static const int quota = cpu_quota("");  // of a container, which seldom changes while a process runs
    const int cpus = schedulable_cpus();
    return quota > 0 ? std::min(cpus, quota) : cpus;
}

struct Region {
    int64_t count;
    LoopBody body;
    const void* context;
    std::atomic<int64_t> next{0};
    std::mutex mutex;
    std::exception_ptr failure;

    Region(int64_t iterations, LoopBody loop_body, const void* loop_context)
        : count(iterations), body(loop_body), context(loop_context) {}

    void work() {
        const bool was_inside = inside_region;
        inside_region = true;
        try {
            for (;;) {
                check_stop();  // before an iteration is taken, as others may wait for it
                const int64_t index = next.fetch_add(1, std::memory_order_relaxed);
                if (index >= count) break;
                body(context, index);
            }
        } catch (...) {
            next.store(count, std::memory_order_relaxed);
            const std::lock_guard<std::mutex> lock(mutex);
            if (!failure) failure = std::current_exception();
        }
        inside_region = was_inside;
    }
};

}  // namespace

int resolve_threads(int requested) {
    require(requested >= 0, "num_threads must be at least 1, not ", requested);
    if (requested > 0) return requested;
    const char* text = std::getenv("COREPRESS_NUM_THREADS");
    if (text == nullptr || *text == '\0') return available_cpus();
    char* end = nullptr;
    errno = 0;
    const long value = std::strtol(text, &end, 10);
    require(*end == '\0' && errno == 0 && value >= 1 && value <= 1024,
            "COREPRESS_NUM_THREADS must be a number from 1 to 1024, not '", text, "'");
    return static_cast<int>(value);
}

void run_parallel(int64_t count, int threads, LoopBody body, const void* context) {
    const int64_t workers = inside_region ? 1 : std::min<int64_t>(threads, count);
    if (workers <= 1) {
        for (int64_t index = 0; index < count; ++index) {
            check_stop();
            body(context, index);
        }
        return;
    }
    Region region(count, body, context);
    StopFlag* const flag = current_stop_flag();
    std::vector<std::thread> helpers;
    helpers.reserve(static_cast<size_t>(workers - 1));
    try {
        for (int64_t worker = 1; worker < workers; ++worker) {
            helpers.emplace_back([&region, flag] {
                const StopScope scope(flag);
                region.work();
            });
        }
    } catch (...) {
        // No more threads or no memory for them: those that started, and the caller, do the work.
    }
    region.work();
    for (std::thread& helper : helpers) helper.join();
    if (region.failure) std::rethrow_exception(region.failure);
}

int64_t RunningSum::add(int64_t piece, int64_t amount) noexcept {
    const auto place = static_cast<size_t>(piece);
    int64_t begin = 1;
    if (piece > 0) {
        while ((begin = ends_[place - 1].load(std::memory_order_acquire)) == 0) std::this_thread::yield();
    }
    ends_[place].store(begin + amount, std::memory_order_release);
    return begin - 1;
}

}  // namespace corepress
