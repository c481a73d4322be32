#include "algo/vectors/vector_entries.h"

namespace corepress {

void VectorEntries::set(const float* entries, int64_t count, int64_t length) {
    count_ = count;
    length_ = length;
    entries_.assign(entries, entries + count * length);
    if (!worth_sorting(count, length)) return;
    stride_ = (count + 15) / 16 * 16;
    planes_.resize(static_cast<size_t>(length * stride_));
    for (int64_t c = 0; c < length; ++c) {
        for (int64_t j = 0; j < stride_; ++j) {
            planes_[static_cast<size_t>(c * stride_ + j)] = entries[(j < count ? j : 0) * length + c];
        }
    }
}

void VectorEntries::assign(const VectorPlanes& planes, int64_t size, VectorTile& tile, uint16_t* codes,
                           float* distances) const {
    if (planes.boxes.lowest == nullptr || !worth_sorting(count_, length_)) {
        kernels().assign_vectors(planes.planes, planes.weights, planes.stride, length_, size, entries_.data(), count_,
                                 codes, distances);
        return;
    }
    const auto room = static_cast<size_t>(stride_ + 16);
    tile.floats.resize(static_cast<size_t>(length_ + 1) * room);
    tile.numbers.resize(2 * room);
    kernels().assign_close_vectors(planes.planes, planes.stride, length_, size, planes.boxes,
                                   {planes_.data(), stride_, count_}, tile.floats.data(), tile.numbers.data(), codes,
                                   distances);
}

void VectorEntries::assign_codes(const VectorPlanes& planes, int64_t size, VectorTile& tile) const {
    kernels().nearest_codes(planes.planes, planes.weights, planes.stride, length_, size, entries_.data(), count_,
                            tile.codes.data(), tile.distances.data());
}

}  // namespace corepress
