// NumPy arrays as pointers and sizes, checked. Float arrays cross this border as the bits of their values.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>
#include <optional>
#include <string>

#include "algo/common/measure.h"
#include "core/formats.h"
#include "core/parallel.h"
#include "core/require.h"
#include "core/span.h"
#include "kernels/table.h"

namespace corepress {

namespace py = pybind11;

using Bytes = py::array_t<uint8_t, py::array::c_style>;
using Floats = py::array_t<float, py::array::c_style>;
using Layout = std::array<int64_t, 3>;  // outer, groups, run

inline int threads_from(const std::optional<int>& num_threads) {
    require(!num_threads || *num_threads >= 1, "num_threads must be at least 1, not ", num_threads.value_or(0));
    return resolve_threads(num_threads.value_or(0));
}

inline GroupLayout layout_from(const Layout& layout, const py::array& array) {
    const GroupLayout result{layout[0], layout[1], layout[2]};
    require(result.outer >= 0 && result.groups >= 1 && result.run >= 0 && result.size() == array.size(), "layout (",
            layout[0], ", ", layout[1], ", ", layout[2], ") does not hold ", array.size(), " elements");
    return result;
}

inline void require_contiguous(const py::array& array, const char* name) {
    constexpr int kAligned = py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    require((array.flags() & py::array::c_style) != 0, name, " must be C-contiguous");
    require((array.flags() & kAligned) != 0, name, " must be aligned to its elements");
}

// bfloat16 is a dtype of the package ml_dtypes, known by its name alone.
inline std::optional<FloatFormat> find_float_format(const py::array& array) {
    const py::dtype dtype = array.dtype();
    if (dtype.byteorder() == '>') return std::nullopt;
    if (dtype.kind() == 'f' && dtype.itemsize() == 2) return FloatFormat::kHalf;
    if (dtype.kind() == 'f' && dtype.itemsize() == 4) return FloatFormat::kSingle;
    const bool is_bfloat16 = dtype.itemsize() == 2 && std::string(py::str(dtype)) == "bfloat16";
    return is_bfloat16 ? std::optional(FloatFormat::kBFloat16) : std::nullopt;
}

inline FloatFormat require_float(const py::array& array, const char* name) {
    const std::optional<FloatFormat> format = find_float_format(array);
    if (!format) {
        throw py::type_error(std::string(name) + " must be float16, bfloat16 or float32, not " +
                             std::string(py::str(array.dtype())));
    }
    require_contiguous(array, name);
    return *format;
}

inline void require_same_dtype(const py::array& first, const py::array& second, const char* names) {
    if (!first.dtype().equal(second.dtype())) {
        throw py::type_error(std::string(names) + " must have one dtype, not " + std::string(py::str(first.dtype())) +
                             " and " + std::string(py::str(second.dtype())));
    }
}

inline void require_size(const py::array& array, int64_t size, const char* name) {
    require(array.size() == size, name, " must have ", size, " elements, not ", array.size());
}

template <typename T>
const T* data_of(const py::array& array) {
    return static_cast<const T*>(array.data());
}

template <typename T>
T* writable_data_of(py::array& array) {
    return static_cast<T*>(array.mutable_data());  // throws for a read-only array
}

inline py::array empty_like_float(const py::array& array, int64_t size) {
    return py::array(array.dtype(), py::array::ShapeContainer{static_cast<py::ssize_t>(size)});
}

// Calls body with a value of the type that holds the bits of a float array.
template <typename Body>
auto with_bits(const py::array& array, Body&& body) {
    return with_bits(find_float_format(array).value_or(FloatFormat::kSingle), body);
}

inline py::tuple tuple_of(const ErrorSums& sums) {
    return py::make_tuple(sums.squared_error, sums.squared_first, sums.squared_second, sums.product,
                          sums.largest_error);
}

inline py::object tuple_of(const std::optional<Noise>& noise) {
    if (!noise) return py::none();
    return py::make_tuple(noise->squared_error, noise->squared_first);
}

inline void require_nbits(int nbits) {
    require(is_palette_width(nbits), "nbits must be 1, 2, 3, 4, 6 or 8, not ", nbits);
}

}  // namespace corepress
