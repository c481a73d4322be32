// Work without the interpreter, which a signal or another thread can end.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "core/stop.h"

namespace corepress {

namespace py = pybind11;

// Ends the calls of threads that have entered it; any thread may tell it to.
class StopSource {
public:
    void enter() const;
    static void leave();
    void stop() { flag_->raise(); }

private:
    std::shared_ptr<StopFlag> flag_ = std::make_shared<StopFlag>();
};

// While it lives, other threads of Python run, and what this one does ends when a signal handler raises an exception,
// which the call then raises, or when the thread's StopSource is told to stop, which raises KeyboardInterrupt.
class NativeCall {
public:
    NativeCall();

private:
    std::shared_ptr<StopFlag> flag_;
    py::gil_scoped_release release_;
    StopScope scope_;
};

void bind_stop(py::module_& module);

}  // namespace corepress
