#include "algo/vectors/vector_sample.h"

#include <algorithm>
#include <limits>

#include "core/parallel.h"

namespace corepress {
namespace {

constexpr uint64_t kMeanSeed = uint64_t{1} << 60, kDrawSeed = uint64_t{2} << 60;

double weight_of(const VectorPlanes& planes, int64_t length, int64_t offset) {
    double weight = 1;
    if (planes.weights != nullptr) {
        weight = 0;
        for (int64_t c = 0; c < length; ++c) weight += static_cast<double>(planes.weights[c * planes.stride + offset]);
    }
    return planes.shares == nullptr ? weight : weight * static_cast<double>(planes.shares[offset]);
}

}  // namespace

void VectorSample::make_room(int64_t size, int64_t first_size, int64_t length, bool weighted, bool shared) {
    size_ = size;
    length_ = length;
    weighted_ = weighted;
    shared_ = shared;
    stride_ = (size + kVectorTile - 1) / kVectorTile * kVectorTile;
    step_ = std::max<int64_t>(1, size / first_size);
    first_size_ = (size + step_ - 1) / step_;
    whole_ = size / step_;
    longer_ = size % step_;
    planes_.assign(static_cast<size_t>(length * stride_), 0.0f);
    weights_.assign(weighted ? planes_.size() : 0, 0.0f);
    shares_.assign(shared ? static_cast<size_t>(stride_) : 0, 0.0f);
}

// Every step_-th vector comes first, then those that follow them, and so on.
int64_t VectorSample::place_of(int64_t index) const {
    const auto place = static_cast<uint32_t>(index), step = static_cast<uint32_t>(step_);  // a half of a wide division
    const int64_t rest = place % step, round = place / step;
    return rest * whole_ + std::min(rest, longer_) + round;
}

void VectorSample::put(int64_t index, const VectorPlanes& from, int64_t offset, double share) {
    const int64_t place = place_of(index);
    for (int64_t c = 0; c < length_; ++c) {
        planes_[static_cast<size_t>(c * stride_ + place)] = from.planes[c * from.stride + offset];
        if (weighted_) {
            const double weight = static_cast<double>(from.weights[c * from.stride + offset]);
            weights_[static_cast<size_t>(c * stride_ + place)] = static_cast<float>(weight * share);
        }
    }
    if (!shared_) return;
    if (from.shares != nullptr) share *= static_cast<double>(from.shares[offset]);
    shares_[static_cast<size_t>(place)] = static_cast<float>(share);
}

// Of some vectors: it only has to be near the middle.
template <typename Bits>
void VectorSample::find_mean(const VectorGroup<Bits>& group) {
    constexpr int64_t kDrawn = 4096;
    auto tile = tiles_.borrow();
    tile->make_room(length_);
    std::vector<double> sums(static_cast<size_t>(length_), 0.0);
    for (int64_t i = 0; i < kDrawn; ++i) {
        const double place = (static_cast<double>(i) + uniform_of(kMeanSeed + static_cast<uint64_t>(i))) / kDrawn;
        const auto index = static_cast<int64_t>(place * static_cast<double>(group.size()));
        const VectorPlanes planes = group.load(std::min(index, group.size() - 1), 1, *tile);
        for (int64_t c = 0; c < length_; ++c) {
            sums[static_cast<size_t>(c)] += static_cast<double>(planes.planes[c * planes.stride]);
        }
    }
    mean_.clear();
    for (const double sum : sums) mean_.push_back(static_cast<float>(sum / kDrawn));
}

template <typename Bits>
void VectorSample::draw(const VectorGroup<Bits>& group, int64_t size, int64_t first_size, int threads) {
    const int64_t count = group.size();
    complete_ = count <= size;
    sorted_ = false;
    make_room(std::min(count, size), first_size, group.length(), group.weighted(),
              group.source.shares != nullptr || (!complete_ && !group.weighted()));
    const int64_t tile_count = (count + kVectorTile - 1) / kVectorTile;
    if (complete_) {
        parallel_pieces(count, kVectorTile, threads, [&](int64_t begin, int64_t end) {
            auto tile = tiles_.borrow();
            tile->make_room(length_);
            const VectorPlanes planes = group.load(begin, end - begin, *tile);
            for (int64_t i = begin; i < end; ++i) put(i, planes, i - begin, 1);
        });
        return;
    }
    find_mean(group);
    sums_.assign(static_cast<size_t>(tile_count) + 1, {});
    constexpr int64_t kTilesPerTask = 64;
    const auto squares_from_mean = [&](int64_t begin, int64_t end, VectorTile& tile, double& sum) {
        tile.make_room(length_);
        const VectorPlanes planes = group.load(begin, end - begin, tile);
        const int64_t padded = (end - begin + 15) / 16 * 16;
        std::fill(tile.distances.begin(), tile.distances.begin() + (end - begin),
                  std::numeric_limits<float>::infinity());
        std::fill(tile.distances.begin() + (end - begin), tile.distances.begin() + padded, 0.0f);
        kernels().approach(planes.planes, planes.weights, planes.stride, length_, padded, planes.shares, mean_.data(),
                           tile.distances.data(), tile.distances.data(), &sum);
        return planes;
    };
    parallel_pieces(count, kVectorTile * kTilesPerTask, threads, [&](int64_t first, int64_t last) {
        auto tile = tiles_.borrow();
        for (int64_t begin = first; begin < last; begin += kVectorTile) {
            const int64_t end = std::min(begin + kVectorTile, last);
            Sums& sums = sums_[static_cast<size_t>(begin / kVectorTile) + 1];
            const VectorPlanes planes = squares_from_mean(begin, end, *tile, sums.square);
            if (planes.weights == nullptr && planes.shares == nullptr) {
                sums.weight = static_cast<double>(end - begin);
                continue;
            }
            for (int64_t i = 0; i < end - begin; ++i) sums.weight += weight_of(planes, length_, i);
        }
    });
    for (size_t t = 1; t < sums_.size(); ++t) {
        sums_[t].weight += sums_[t - 1].weight;
        sums_[t].square += sums_[t - 1].square;
    }
    if (!(sums_.back().weight > 0)) {  // nothing counts, so anything will do
        for (size_t t = 0; t < sums_.size(); ++t) sums_[t] = {static_cast<double>(t), 0};
    }
    const Sums total = sums_.back();
    const double per_weight = 0.5 / total.weight, per_square = total.square > 0 ? 0.5 / total.square : 0.0;
    const auto place_of_draw = [&](int64_t index) {
        return (static_cast<double>(index) + uniform_of(kDrawSeed + static_cast<uint64_t>(index))) /
               static_cast<double>(size_);
    };
    const double whole = total.weight * per_weight + total.square * per_square;
    parallel_pieces(count, kVectorTile * kTilesPerTask, threads, [&](int64_t first, int64_t last) {
        auto tile = tiles_.borrow();
        for (int64_t begin = first; begin < last; begin += kVectorTile) {
            const int64_t end = std::min(begin + kVectorTile, last);
            const auto bound = [&](int64_t t) {
                const Sums& sums = sums_[static_cast<size_t>(t)];
                return (sums.weight * per_weight + sums.square * per_square) / whole;
            };
            double until = bound(begin / kVectorTile);
            const double limit = end == count ? 2.0 : bound(begin / kVectorTile + 1);
            const auto draws = static_cast<double>(size_);
            auto index = static_cast<int64_t>(std::min(std::max(0.0, until * draws - 1), draws));  // NaN becomes 0
            while (index < size_ && place_of_draw(index) < until) ++index;
            if (index >= size_ || place_of_draw(index) >= limit) continue;
            double square_sum = 0;
            const VectorPlanes planes = squares_from_mean(begin, end, *tile, square_sum);
            double place = place_of_draw(index);
            for (int64_t i = 0; i < end - begin; ++i) {
                const double square = static_cast<double>(tile->distances[static_cast<size_t>(i)]);
                const double chance = (weight_of(planes, length_, i) * per_weight + square * per_square) / whole;
                until += chance;
                if (i + 1 == end - begin) until = limit;
                while (place < until) {
                    put(index, planes, i, chance > 0 ? 1 / (chance * static_cast<double>(size_)) : 0.0);
                    if (++index >= size_) break;
                    place = place_of_draw(index);
                }
                if (index >= size_) break;
            }
        }
    });
}

void VectorSample::sort(int threads, const std::function<void()>& before) {
    constexpr int64_t kPart = int64_t{1} << 17;
    struct Part {
        int64_t begin;
        int64_t size;
    };
    std::vector<Part> parts{{0, first_size_}};
    for (int64_t begin = first_size_, end = next_size(begin); begin < size_; begin = end, end = next_size(end)) {
        for (int64_t at = begin; at < end; at += kPart) parts.push_back({at, std::min(kPart, end - at)});
    }
    parallel_for(static_cast<int64_t>(parts.size()), size_ < kGrain ? 1 : threads, [&](int64_t index) {
        const Part part = parts[static_cast<size_t>(index)];
        if (index == 0) before();
        auto sorter = sorters_.borrow();
        sorter->order.sort(planes_.data() + part.begin, stride_, part.size, length_);
        if (!shared_) return;
        float* const shares = shares_.data() + part.begin;
        sorter->shares.assign(shares, shares + part.size);
        for (int64_t i = 0; i < part.size; ++i) {
            shares[i] = sorter->shares[sorter->order.order()[static_cast<size_t>(i)]];
        }
    });
    boxes_.find(planes_.data(), stride_, size_, length_, threads);
    sorted_ = true;
}

template void VectorSample::draw(const VectorGroup<uint16_t>&, int64_t, int64_t, int);
template void VectorSample::draw(const VectorGroup<BFloat16Bits>&, int64_t, int64_t, int);
template void VectorSample::draw(const VectorGroup<uint32_t>&, int64_t, int64_t, int);

}  // namespace corepress
