#include <pybind11/stl.h>

#include "algo/quantize.h"
#include "bindings/arrays.h"

namespace corepress {
namespace {

py::tuple quantize_array(const py::array& weight, const Layout& layout, std::pair<int, int> range, bool is_signed,
                         bool symmetric, std::optional<int> num_threads) {
    require_float(weight, "weight");
    const GroupLayout groups = layout_from(layout, weight);
    const int threads = threads_from(num_threads);
    require(
        range.first < range.second && range.first >= (is_signed ? -128 : 0) && range.second <= (is_signed ? 127 : 255),
        "range [", range.first, ", ", range.second, "] does not fit 8 bits");
    py::array scale = empty_like_float(weight, groups.groups);
    Bytes zero_point(groups.groups), codes(weight.size());
    uint8_t* const zero_points = zero_point.mutable_data();
    uint8_t* const out = codes.mutable_data();
    with_bits(weight, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        Bits* const scales = writable_data_of<Bits>(scale);
        const py::gil_scoped_release release;
        quantize(values, groups, {range.first, range.second, is_signed}, symmetric, threads, scales, zero_points, out);
    });
    return py::make_tuple(codes, scale, zero_point);
}

void dequantize_array(const Bytes& codes, const Layout& layout, bool is_signed, const py::array& scale,
                      const std::optional<Bytes>& zero_point, py::array& out, std::optional<int> num_threads) {
    require_float(scale, "scale");
    require_float(out, "out");
    require_same_dtype(scale, out, "scale and out");
    const GroupLayout groups = layout_from(layout, out);
    require_size(codes, out.size(), "codes");
    require_size(scale, groups.groups, "scale");
    if (zero_point) require_size(*zero_point, groups.groups, "zero_point");
    const int threads = threads_from(num_threads);
    const uint8_t* const in = codes.data();
    const uint8_t* const zero_points = zero_point ? zero_point->data() : nullptr;
    with_bits(out, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const scales = data_of<Bits>(scale);
        Bits* const values = writable_data_of<Bits>(out);
        const py::gil_scoped_release release;
        dequantize(in, groups, is_signed, scales, zero_points, threads, values);
    });
}

}  // namespace

void bind_quantize(py::module_& module) {
    module.def("quantize", &quantize_array, py::arg("weight"), py::arg("layout"), py::arg("range"),
               py::arg("is_signed"), py::arg("symmetric"), py::arg("num_threads") = py::none());
    module.def("dequantize", &dequantize_array, py::arg("codes").noconvert(), py::arg("layout"), py::arg("is_signed"),
               py::arg("scale"), py::arg("zero_point"), py::arg("out"), py::arg("num_threads") = py::none());
}

}  // namespace corepress
