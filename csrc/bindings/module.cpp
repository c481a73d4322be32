// The native module: version, build, levels; the rest is bound by topic.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "core/cpu_quota.h"
#include "core/parallel.h"
#include "dispatch.h"

namespace py = pybind11;

namespace corepress {
void bind_calibrate(py::module_& module);
void bind_fake_quantize(py::module_& module);
void bind_kmeans(py::module_& module);
void bind_pack(py::module_& module);
void bind_palettize(py::module_& module);
void bind_quantize(py::module_& module);
void bind_soft_kmeans(py::module_& module);
void bind_steps(py::module_& module);
void bind_stop(py::module_& module);
void bind_prune(py::module_& module);
void bind_measure(py::module_& module);
void bind_vectors(py::module_& module);
void bind_nested(py::module_& module);
void bind_mapped_memory(py::module_& module);

static bool in_main_interpreter() { return PyInterpreterState_Get() == PyInterpreterState_Main(); }

static constexpr const char* ONLY_MAIN =
    "corepress cannot be used in a subinterpreter; import it in the main interpreter (under mod_wsgi: "
    "WSGIApplicationGroup %{GLOBAL}), or in another process";
}  // namespace corepress

PYBIND11_MODULE(bindings, module, py::mod_gil_not_used()) {
    using namespace corepress;
    if (!in_main_interpreter()) throw py::import_error(ONLY_MAIN);
    module.attr("__version__") = COREPRESS_VERSION;
    module.attr("compiler") = COREPRESS_COMPILER;
    kernels();  // a wrong COREPRESS_SIMD fails here, at import
    module.def("simd_levels", &simd_levels);
    module.def("simd_level", [] { return kernels().level; });
    module.def("set_simd_level", &set_simd_level, py::arg("level"));
    module.def("default_threads", [] { return resolve_threads(0); });
    module.def("cpu_quota", &cpu_quota, py::arg("root") = "");
    bind_calibrate(module);
    bind_fake_quantize(module);
    bind_kmeans(module);
    bind_pack(module);
    bind_palettize(module);
    bind_quantize(module);
    bind_soft_kmeans(module);
    bind_steps(module);
    bind_stop(module);
    bind_prune(module);
    bind_measure(module);
    bind_vectors(module);
    bind_nested(module);
    bind_mapped_memory(module);
}

// In a subinterpreter of Python 3.11 and older pybind11 waits for a lock without end. Newer ones may call this in the
// main interpreter for a subinterpreter, and then only fill the module there.
extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
    if (corepress::in_main_interpreter()) return PyInit_bindings();
    PyErr_SetString(PyExc_ImportError, corepress::ONLY_MAIN);
    return nullptr;
}
