#include "bindings/native_call.h"

#include <memory>
#include <utility>

namespace corepress {
namespace {

struct Entered {
    std::shared_ptr<StopFlag> flag;
    std::unique_ptr<Entered> outer;
};

// A bare pointer: GCC for Windows destroys what a thread owns after giving its memory back.
thread_local Entered* entered = nullptr;

// Signals reach Python's handlers on the main thread only, and only when it asks for them.
bool has_pending_error(void*) {
    const py::gil_scoped_acquire acquire;
    return PyErr_CheckSignals() != 0;
}

// The error of a signal handler is set already.
void raise_stopped(std::exception_ptr failure) {
    try {
        std::rethrow_exception(std::move(failure));
    } catch (const Stopped&) {
        if (PyErr_Occurred() == nullptr) PyErr_SetString(PyExc_KeyboardInterrupt, "the call was stopped");
    }
}

}  // namespace

void StopSource::enter() const { entered = new Entered{flag_, std::unique_ptr<Entered>(entered)}; }

void StopSource::leave() {
    const std::unique_ptr<Entered> left(entered);
    entered = left->outer.release();
}

NativeCall::NativeCall()
    : flag_(entered == nullptr ? std::make_shared<StopFlag>() : entered->flag),
      scope_(flag_.get(), {&has_pending_error, nullptr}) {}

void bind_stop(py::module_& module) {
    py::register_exception_translator(&raise_stopped);
    py::class_<StopSource>(module, "StopSource")
        .def(py::init<>())
        .def("stop", &StopSource::stop)
        .def("__enter__",
             [](py::object source) {
                 source.cast<StopSource&>().enter();
                 return source;
             })
        .def("__exit__", [](const StopSource&, const py::args&) { StopSource::leave(); });
    module.def("check_stop", [] {
        if (entered != nullptr && entered->flag->is_raised()) throw Stopped();
    });
}

}  // namespace corepress
