#include <pybind11/pybind11.h>

#include <memory>

#include "core/mapped_memory.h"

namespace py = pybind11;

namespace corepress {

void bind_mapped_memory(py::module_& module) {
    py::class_<MemoryGuard>(module, "MemoryGuard")
        .def(py::init([](const py::buffer& memory) {
                 const py::buffer_info info = memory.request();
                 return std::make_unique<MemoryGuard>(info.ptr, static_cast<size_t>(info.size * info.itemsize));
             }),
             py::arg("memory"))
        .def_property_readonly("lost", &MemoryGuard::lost);
}

}  // namespace corepress
