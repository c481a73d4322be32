// The one thread primitive: a loop whose iterations may run on any thread, in any order.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace corepress {

// Threads to use when a caller asks for `requested`: 0 stands for COREPRESS_NUM_THREADS, else for the CPUs that this
// process may use, by its affinity and the quotas of its container.
int resolve_threads(int requested);

using LoopBody = void (*)(const void* context, int64_t index);
void run_parallel(int64_t count, int threads, LoopBody body, const void* context);

// Calls body(index) for 0 <= index < count. The caller works too. The first exception stops the loop and is rethrown
// here, after every thread has been joined; so does check_stop(), which is called between iterations. Inside another
// parallel_for the loop is serial. Iterations begin in their order, so one may wait for those before it.
template <typename Body>
void parallel_for(int64_t count, int threads, const Body& body) {
    run_parallel(
        count, threads, [](const void* context, int64_t index) { (*static_cast<const Body*>(context))(index); }, &body);
}

// Cuts [0, size) into pieces of `grain` (the last may be shorter) and calls body(begin, end) for each. The pieces do
// not depend on the thread count, so whatever is combined piece by piece in order is the same for every thread count.
template <typename Body>
void parallel_pieces(int64_t size, int64_t grain, int threads, const Body& body) {
    const int64_t count = (size + grain - 1) / grain;
    parallel_for(count, threads, [&](int64_t piece) {
        const int64_t begin = piece * grain;
        body(begin, begin + grain < size ? begin + grain : size);
    });
}

// Runs body(job, threads) for each of several jobs, given their sizes in weights: large ones one after the other with
// all threads, the others side by side with one thread each.
template <typename Sizes, typename Body>
void parallel_jobs(const Sizes& sizes, int threads, const Body& body, int64_t large = int64_t{1} << 22) {
    const int64_t count = static_cast<int64_t>(sizes.size());
    const auto is_large = [&](int64_t job) { return count == 1 || sizes[static_cast<std::size_t>(job)] >= large; };
    for (int64_t job = 0; job < count; ++job) {
        if (is_large(job)) body(job, threads);
    }
    parallel_for(count, threads, [&](int64_t job) {
        if (!is_large(job)) body(job, 1);
    });
}

// Sums over the pieces of a loop, each known as soon as all pieces before it have been counted. Iterations of one loop
// must count one piece each, in its order, and must not throw before they did.
class RunningSum {
public:
    explicit RunningSum(int64_t pieces) : ends_(static_cast<std::size_t>(pieces)) {}

    // Counts a piece, waits for those before it, and returns their sum.
    int64_t add(int64_t piece, int64_t amount) noexcept;
    int64_t total() const { return ends_.empty() ? 0 : ends_.back().load(std::memory_order_relaxed) - 1; }

private:
    std::vector<std::atomic<int64_t>> ends_;  // one more than the sum up to each piece; 0 until it is known
};

// A multiple of 8, so that a piece of packed codes always begins at a byte.
inline constexpr int64_t kGrain = int64_t{1} << 16;

}  // namespace corepress
