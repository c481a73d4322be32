// The native module: version, build, levels; the rest is bound by topic.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "core/cpu_quota.h"
#include "core/parallel.h"
#include "dispatch.h"

namespace py = pybind11;

namespace corepress {
void bind_kmeans(py::module_& module);
void bind_pack(py::module_& module);
void bind_palettize(py::module_& module);
void bind_quantize(py::module_& module);
void bind_steps(py::module_& module);
void bind_stop(py::module_& module);
void bind_prune(py::module_& module);
void bind_measure(py::module_& module);
void bind_vectors(py::module_& module);
void bind_nested(py::module_& module);
void bind_mapped_memory(py::module_& module);
}  // namespace corepress

// pybind11 defines the function that Python calls, which in a subinterpreter of Python 3.11 and older waits for ever
// for a lock that it holds itself; another one stands before it.
#define PyInit__core PyInit__core_of_main_interpreter
PYBIND11_MODULE(_core, module, py::mod_gil_not_used()) {
    using namespace corepress;
    module.attr("__version__") = COREPRESS_VERSION;
    module.attr("compiler") = COREPRESS_COMPILER;
    kernels();  // a wrong COREPRESS_SIMD fails here, at import
    module.def("simd_levels", &simd_levels);
    module.def("simd_level", [] { return kernels().level; });
    module.def("set_simd_level", &set_simd_level, py::arg("level"));
    module.def("default_threads", [] { return resolve_threads(0); });
    module.def("cpu_quota", &cpu_quota, py::arg("root") = "");
    bind_kmeans(module);
    bind_pack(module);
    bind_palettize(module);
    bind_quantize(module);
    bind_steps(module);
    bind_stop(module);
    bind_prune(module);
    bind_measure(module);
    bind_vectors(module);
    bind_nested(module);
    bind_mapped_memory(module);
}
#undef PyInit__core

extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError,
                        "corepress works in the main interpreter only, not in subinterpreters; under mod_wsgi, set "
                        "WSGIApplicationGroup %{GLOBAL}");
        return nullptr;
    }
    return PyInit__core_of_main_interpreter();
}
