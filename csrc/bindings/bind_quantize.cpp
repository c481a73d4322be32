#include <pybind11/stl.h>

#include "algo/quantize.h"
#include "bindings/arrays.h"
#include "bindings/layouts.h"

namespace corepress {
namespace {

py::tuple quantize_array(const py::array& weight, const Splits& splits, int nbits, bool is_signed, bool symmetric,
                         bool search_scale, std::optional<int> num_threads) {
    require_float(weight, "weight");
    const BlockLayout layout = blocks_from(splits, weight.size());
    const AffineEncoding encoding{type_from(nbits, is_signed), symmetric, search_scale};
    const int threads = threads_from(num_threads);
    py::array scale = empty_like_float(weight, layout.groups());
    Bytes zero_point(layout.groups()), packed(packed_size(weight.size(), nbits));
    uint8_t* const zero_points = zero_point.mutable_data();
    uint8_t* const out = packed.mutable_data();
    with_bits(weight, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        Bits* const scales = writable_data_of<Bits>(scale);
        const py::gil_scoped_release release;
        quantize(values, layout, encoding, threads, scales, zero_points, out);
    });
    return py::make_tuple(packed, scale, zero_point);
}

void dequantize_array(const Bytes& packed, const Splits& splits, int nbits, bool is_signed, const py::array& scale,
                      const std::optional<Bytes>& zero_point, py::array& out, std::optional<int> num_threads) {
    require_float(scale, "scale");
    require_float(out, "out");
    require_same_dtype(scale, out, "scale and out");
    const BlockLayout layout = blocks_from(splits, out.size());
    const IntegerType type = type_from(nbits, is_signed);
    require_size(packed, packed_size(out.size(), nbits), "data");
    require_size(scale, layout.groups(), "scale");
    if (zero_point) require_size(*zero_point, layout.groups(), "zero_point");
    const int threads = threads_from(num_threads);
    const uint8_t* const in = packed.data();
    const uint8_t* const zero_points = zero_point ? zero_point->data() : nullptr;
    with_bits(out, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const scales = data_of<Bits>(scale);
        Bits* const values = writable_data_of<Bits>(out);
        const py::gil_scoped_release release;
        dequantize(in, layout, type, scales, zero_points, threads, values);
    });
}

}  // namespace

void bind_quantize(py::module_& module) {
    module.def("quantize", &quantize_array, py::arg("weight"), py::arg("layout"), py::arg("nbits"),
               py::arg("is_signed"), py::arg("symmetric"), py::arg("search_scale") = false,
               py::arg("num_threads") = py::none());
    module.def("dequantize", &dequantize_array, py::arg("data").noconvert(), py::arg("layout"), py::arg("nbits"),
               py::arg("is_signed"), py::arg("scale"), py::arg("zero_point"), py::arg("out"),
               py::arg("num_threads") = py::none());
}

}  // namespace corepress
