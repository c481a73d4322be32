#include <pybind11/stl.h>

#include "algo/prune/nested.h"
#include "bindings/arrays.h"
#include "bindings/layouts.h"
#include "bindings/native_call.h"
#include "dispatch.h"

namespace corepress {
namespace {

// The number of codes that there must be: of the elements that the mask keeps, or of all.
int64_t code_count(const std::optional<Bytes>& mask, int64_t size) {
    if (!mask) return size;
    require_size(*mask, packed_size(size, 1), "mask");
    return kernels().count_bits(mask->data(), size);
}

BlockLayout layout_of(const Splits& splits) {
    int64_t size = 1;
    for (const auto& [groups, length] : splits) size *= groups * length;
    return blocks_from(splits, size);
}

template <typename T>
void run_look_up(const Bytes& indices, const BlockLayout& layout, int nbits, const py::array& lut, const uint8_t* mask,
                 int threads, py::array& out) {
    const uint8_t* const packed = indices.data();
    const T* const luts = data_of<T>(lut);
    const Span<T> values(writable_data_of<T>(out), out.size());
    const NativeCall call;
    look_up(packed, layout, nbits, luts, mask, threads, values);
}

void look_up_array(const Bytes& indices, const Splits& splits, int nbits, const py::array& lut,
                   const std::optional<Bytes>& mask, py::array& out, std::optional<int> num_threads) {
    require_nbits(nbits);
    const BlockLayout layout = layout_of(splits);
    const int64_t count = code_count(mask, layout.size());
    require_same_dtype(lut, out, "lut and out");
    require_contiguous(lut, "lut");
    require_contiguous(out, "out");
    require_size(out, count, "out");
    require_size(indices, packed_size(count, nbits), "indices");
    require_size(lut, layout.groups() << nbits, "lut");
    const int threads = threads_from(num_threads);
    const uint8_t* const bits = mask ? mask->data() : nullptr;
    switch (lut.itemsize()) {
        case 1: return run_look_up<uint8_t>(indices, layout, nbits, lut, bits, threads, out);
        case 2: return run_look_up<uint16_t>(indices, layout, nbits, lut, bits, threads, out);
        case 4: return run_look_up<uint32_t>(indices, layout, nbits, lut, bits, threads, out);
        default: throw py::type_error("lut must have elements of 1, 2 or 4 bytes");
    }
}

void dequantize_kept_array(const Bytes& data, const Splits& splits, const std::string& dtype, const py::array& scale,
                           const std::optional<Bytes>& zero_point, const Bytes& mask, py::array& out,
                           std::optional<int> num_threads) {
    require_float(out, "out");
    require_scales(scale, out, "scale and out");
    const BlockLayout layout = layout_of(splits);
    const CodeType type = type_from(dtype);
    const int64_t count = code_count(mask, layout.size());
    require_size(out, count, "out");
    require_size(data, packed_size(count, type.nbits), "data");
    require_size(scale, layout.groups(), "scale");
    if (zero_point) require_size(*zero_point, layout.groups(), "zero_point");
    const int threads = threads_from(num_threads);
    const uint8_t* const packed = data.data();
    const uint8_t* const bits_of_mask = mask.data();
    const uint8_t* const zero_points = zero_point ? zero_point->data() : nullptr;
    with_bits(out, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const scales = are_exponents(scale) ? nullptr : data_of<Bits>(scale);
        const uint8_t* const exponents = are_exponents(scale) ? data_of<uint8_t>(scale) : nullptr;
        const Span<Bits> values(writable_data_of<Bits>(out), out.size());
        const NativeCall call;
        dequantize_kept(packed, layout, type, scales, zero_points, bits_of_mask, threads, values, exponents);
    });
}

Bytes gather_codes_array(const Bytes& data, int nbits, const Bytes& mask, int64_t count,
                         std::optional<int> num_threads) {
    require_nbits(nbits);
    require_size(data, packed_size(count, nbits), "data");
    const int64_t kept_count = code_count(mask, count);
    Bytes kept(packed_size(kept_count, nbits));
    const int threads = threads_from(num_threads);
    const uint8_t* const packed = data.data();
    const uint8_t* const bits_of_mask = mask.data();
    uint8_t* const out = kept.mutable_data();
    {
        const NativeCall call;
        gather_codes(packed, count, nbits, bits_of_mask, kept_count, threads, out);
    }
    return kept;
}

py::tuple normalize_array(const py::array& weight, const Layout& layout, std::optional<int> num_threads) {
    require_float(weight, "weight");
    const GroupLayout groups = layout_from(layout, weight);
    const int threads = threads_from(num_threads);
    py::array scale = empty_like_float(weight, groups.groups), quotients = empty_like_float(weight, weight.size());
    with_bits(weight, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        Bits* const scales = writable_data_of<Bits>(scale);
        Bits* const out = writable_data_of<Bits>(quotients);
        const NativeCall call;
        normalize(values, groups, threads, scales, out);
    });
    return py::make_tuple(scale, quotients);
}

}  // namespace

void bind_nested(py::module_& module) {
    module.def("look_up", &look_up_array, py::arg("indices").noconvert(), py::arg("layout"), py::arg("nbits"),
               py::arg("lut"), py::arg("mask"), py::arg("out"), py::arg("num_threads") = py::none());
    module.def("dequantize_kept", &dequantize_kept_array, py::arg("data").noconvert(), py::arg("layout"),
               py::arg("dtype"), py::arg("scale"), py::arg("zero_point"), py::arg("mask").noconvert(), py::arg("out"),
               py::arg("num_threads") = py::none());
    module.def("gather_codes", &gather_codes_array, py::arg("data").noconvert(), py::arg("nbits"),
               py::arg("mask").noconvert(), py::arg("count"), py::arg("num_threads") = py::none());
    module.def("normalize", &normalize_array, py::arg("weight"), py::arg("layout"),
               py::arg("num_threads") = py::none());
}

}  // namespace corepress
