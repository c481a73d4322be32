// Loops over threads: every way to leave one joins all threads and raises one error.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "core/parallel.h"
#include "core/stop.h"

namespace {

std::atomic<int64_t> allocations_left{-1};  // before one fails; negative: none does
std::atomic<int> failures{0};

void expect(bool condition, const char* what) {
    if (condition) return;
    std::printf("FAILED: %s\n", what);
    ++failures;
}

template <typename Error, typename Body>
bool throws(const Body& body) {
    try {
        body();
    } catch (const Error&) {
        return true;
    }
    return false;
}

using corepress::parallel_for;

void an_exception_ends_the_loop() {
    for (int threads = 1; threads <= 8; ++threads) {
        std::atomic<int> running{0}, begun{0};
        const auto body = [&](int64_t index) {
            ++running;
            ++begun;
            if (index == 10) {
                --running;
                throw std::runtime_error("ten");
            }
            std::this_thread::yield();
            --running;
        };
        expect(throws<std::runtime_error>([&] { parallel_for(100000, threads, body); }), "the error is raised");
        expect(running == 0, "no iteration runs on");
        expect(begun < 100000, "the others are not begun");
    }
}

void every_iteration_throws() {
    const auto body = [](int64_t index) { throw std::runtime_error(std::to_string(index)); };
    expect(throws<std::runtime_error>([&] { parallel_for(1000, 8, body); }), "one error is raised");
}

void nested_loops_are_serial() {
    std::atomic<int64_t> sum{0};
    std::atomic<int> elsewhere{0};
    parallel_for(64, 4, [&](int64_t outer) {
        const auto here = std::this_thread::get_id();
        parallel_for(64, 4, [&](int64_t inner) {
            if (std::this_thread::get_id() != here) ++elsewhere;
            sum += outer * inner;
        });
    });
    expect(elsewhere == 0, "nested iterations stay on their thread");
    expect(sum == 2016 * 2016, "all are done");
    const auto nested_failure = [] {
        parallel_for(16, 4, [](int64_t) {
            parallel_for(16, 4, [](int64_t inner) {
                if (inner == 3) throw std::runtime_error("three");
            });
        });
    };
    expect(throws<std::runtime_error>(nested_failure), "an error of a nested loop is raised");
}

void threads_that_cannot_be_started_are_done_without() {
    for (int64_t left = 0; left < 40; ++left) {
        std::atomic<int> done{0};
        bool raised = false;
        allocations_left = left;
        try {
            parallel_for(64, 16, [&](int64_t) { ++done; });
        } catch (const std::bad_alloc&) {
            raised = true;
        }
        allocations_left = -1;
        expect(raised || done == 64, "all is done, or there was no memory for the loop itself");
    }
}

void a_flag_stops_a_loop() {
    for (int threads : {1, 4}) {
        corepress::StopFlag flag;
        std::atomic<int64_t> done{0};
        std::thread stopper([&] {
            while (done < 100) std::this_thread::yield();
            flag.raise();
        });
        const corepress::StopScope scope(&flag);
        expect(throws<corepress::Stopped>([&] { parallel_for(int64_t{1} << 40, threads, [&](int64_t) { ++done; }); }),
               "a loop without end ends");
        stopper.join();
    }
}

void a_poll_stops_a_loop() {
    corepress::StopFlag flag;
    int asked = 0;
    const corepress::StopPoll poll{[](void* context) { return ++*static_cast<int*>(context) == 3; }, &asked};
    const corepress::StopScope scope(&flag, poll);
    expect(throws<corepress::Stopped>([&] { parallel_for(int64_t{1} << 40, 4, [](int64_t) {}); }), "it ends");
    expect(asked == 3, "when it was asked for the third time");
    expect(throws<corepress::Stopped>([] { parallel_for(1, 1, [](int64_t) {}); }), "and so do later calls");
}

void scopes_nest() {
    corepress::StopFlag outer, inner;
    inner.raise();
    const corepress::StopScope scope(&outer);
    {
        const corepress::StopScope nested(&inner);
        expect(throws<corepress::Stopped>([] { corepress::check_stop(); }), "the inner flag is raised");
    }
    corepress::check_stop();
    expect(corepress::current_stop_flag() == &outer, "the outer flag is back");
}

// Pieces that wait for those before them do not wait for ever.
void running_sums_do_not_wait_for_stopped_loops() {
    for (int attempt = 0; attempt < 50; ++attempt) {
        corepress::StopFlag flag;
        const int64_t count = int64_t{1} << 14;
        corepress::RunningSum sum(count);
        std::atomic<int64_t> begun{0};
        std::thread stopper([&] {
            while (begun < 50) std::this_thread::yield();
            flag.raise();
        });
        const corepress::StopScope scope(&flag);
        throws<corepress::Stopped>([&] {
            parallel_for(count, 4, [&](int64_t piece) {
                ++begun;
                std::this_thread::sleep_for(std::chrono::microseconds(piece % 7 * 10));
                sum.add(piece, 1);
            });
        });
        stopper.join();
    }
}

}  // namespace

void* operator new(size_t size) {
    if (allocations_left >= 0 && allocations_left-- == 0) {
        allocations_left = 0;
        throw std::bad_alloc();
    }
    if (void* const memory = std::malloc(size)) return memory;
    throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

int main() {
    an_exception_ends_the_loop();
    every_iteration_throws();
    nested_loops_are_serial();
    threads_that_cannot_be_started_are_done_without();
    a_flag_stops_a_loop();
    a_poll_stops_a_loop();
    scopes_nest();
    running_sums_do_not_wait_for_stopped_loops();
    std::printf("%d failed\n", failures.load());
    return failures == 0 ? 0 : 1;
}
