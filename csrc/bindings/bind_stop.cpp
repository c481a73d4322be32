#include "bindings/native_call.h"

#include <utility>
#include <vector>

namespace corepress {
namespace {

thread_local std::vector<std::shared_ptr<StopFlag>> entered;

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

void StopSource::enter() const { entered.push_back(flag_); }

void StopSource::leave() { entered.pop_back(); }

NativeCall::NativeCall()
    : flag_(entered.empty() ? std::make_shared<StopFlag>() : entered.back()),
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
        if (!entered.empty() && entered.back()->is_raised()) throw Stopped();
    });
}

}  // namespace corepress
