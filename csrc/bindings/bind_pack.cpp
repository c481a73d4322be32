#include "bindings/arrays.h"
#include "dispatch.h"

namespace corepress {
namespace {

void pack_bits(const Bytes& codes, int nbits, Bytes& out) {
    require_nbits(nbits);
    require_size(out, packed_size(codes.size(), nbits), "out");
    const uint8_t* const in = codes.data();
    uint8_t* const packed = out.mutable_data();
    const py::gil_scoped_release release;
    kernels().pack(in, codes.size(), nbits, packed);
}

void unpack_bits(const Bytes& data, int nbits, int64_t count, Bytes& out) {
    require_nbits(nbits);
    require(count >= 0, "count must not be negative, not ", count);
    require_size(data, packed_size(count, nbits), "data");
    require_size(out, count, "out");
    const uint8_t* const packed = data.data();
    uint8_t* const codes = out.mutable_data();
    const py::gil_scoped_release release;
    kernels().unpack(packed, count, nbits, codes);
}

int64_t count_bits(const Bytes& mask, int64_t count) {
    require(count >= 0, "count must not be negative, not ", count);
    require_size(mask, packed_size(count, 1), "mask");
    const uint8_t* const bits = mask.data();
    const py::gil_scoped_release release;
    return kernels().count_bits(bits, count);
}

}  // namespace

void bind_pack(py::module_& module) {
    module.def("pack_bits", &pack_bits, py::arg("codes").noconvert(), py::arg("nbits"), py::arg("out").noconvert());
    module.def("unpack_bits", &unpack_bits, py::arg("data").noconvert(), py::arg("nbits"), py::arg("count"),
               py::arg("out").noconvert());
    module.def("count_bits", &count_bits, py::arg("mask").noconvert(), py::arg("count"));
}

}  // namespace corepress
