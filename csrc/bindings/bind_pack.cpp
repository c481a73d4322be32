#include <pybind11/stl.h>

#include "algo/common/pack_bits.h"
#include "bindings/arrays.h"
#include "bindings/native_call.h"
#include "dispatch.h"

namespace corepress {
namespace {

void require_width(int nbits) { require(nbits >= 1 && nbits <= 8, "nbits must be 1 to 8, not ", nbits); }

// False if a code does not fit.
bool pack_array(const Bytes& codes, int nbits, bool is_signed, bool big, Bytes& out, std::optional<int> num_threads) {
    require_width(nbits);
    require_size(out, packed_size(codes.size(), nbits), "out");
    const int threads = threads_from(num_threads);
    const uint8_t* const in = codes.data();
    uint8_t* const packed = out.mutable_data();
    const NativeCall call;
    return pack_bits(in, codes.size(), {nbits, is_signed, big}, threads, packed);
}

void unpack_array(const Bytes& data, int nbits, bool is_signed, bool big, int64_t count, Bytes& out,
                  std::optional<int> num_threads) {
    require_width(nbits);
    require(count >= 0, "count must not be negative, not ", count);
    require_size(data, packed_size(count, nbits), "data");
    require_size(out, count, "out");
    const int threads = threads_from(num_threads);
    const uint8_t* const packed = data.data();
    uint8_t* const codes = out.mutable_data();
    const NativeCall call;
    unpack_bits(packed, count, {nbits, is_signed, big}, threads, codes);
}

int64_t count_bits(const Bytes& mask, int64_t count) {
    require(count >= 0, "count must not be negative, not ", count);
    require_size(mask, packed_size(count, 1), "mask");
    const uint8_t* const bits = mask.data();
    const NativeCall call;
    return kernels().count_bits(bits, count);
}

}  // namespace

void bind_pack(py::module_& module) {
    module.def("pack_bits", &pack_array, py::arg("codes").noconvert(), py::arg("nbits"), py::arg("is_signed"),
               py::arg("big"), py::arg("out").noconvert(), py::arg("num_threads") = py::none());
    module.def("unpack_bits", &unpack_array, py::arg("data").noconvert(), py::arg("nbits"), py::arg("is_signed"),
               py::arg("big"), py::arg("count"), py::arg("out").noconvert(), py::arg("num_threads") = py::none());
    module.def("count_bits", &count_bits, py::arg("mask").noconvert(), py::arg("count"));
}

}  // namespace corepress
