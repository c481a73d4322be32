#include "core/stop.h"

#include <chrono>

namespace corepress {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kBetweenPolls{40};

struct State {
    StopFlag* flag = nullptr;
    StopPoll poll = {};
    Clock::time_point next_poll = {};
};

thread_local State state;

}  // namespace

StopScope::StopScope(StopFlag* flag, StopPoll poll) noexcept : outer_flag_(state.flag), outer_poll_(state.poll) {
    state.flag = flag;
    state.poll = poll;
    if (poll.ask != nullptr) state.next_poll = Clock::now() + kBetweenPolls;
}

StopScope::~StopScope() {
    state.flag = outer_flag_;
    state.poll = outer_poll_;
}

StopFlag* current_stop_flag() noexcept { return state.flag; }

void check_stop() {
    if (state.flag == nullptr) return;
    if (state.flag->is_raised()) throw Stopped();
    if (state.poll.ask == nullptr) return;
    const Clock::time_point now = Clock::now();
    if (now < state.next_poll) return;
    const bool stop = state.poll.ask(state.poll.context);
    state.next_poll = Clock::now() + kBetweenPolls;
    if (!stop) return;
    state.flag->raise();
    throw Stopped();
}

}  // namespace corepress
