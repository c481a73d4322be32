#include "algo/structure.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <vector>

#include "algo/slots.h"
#include "core/half.h"
#include "core/parallel.h"
#include "dispatch.h"

namespace corepress {
namespace {

// Groups of `length` consecutive elements of the axis; `first` counts groups from the start of the tensor.
struct Groups {
    int64_t first;
    int64_t count;
    int64_t length;
    int64_t offset;
};

// Where no group is cut short the tensor is one long axis.
GroupLayout joined(const GroupLayout& axis, int64_t length) {
    if (axis.groups % length != 0) return axis;
    return {1, axis.outer * axis.groups, axis.run};
}

// Calls body(Groups) for the full groups and the shorter ones at the ends of the axis, in tasks of similar size.
template <typename Body>
void parallel_groups(const GroupLayout& axis, int64_t length, int threads, const Body& body) {
    const int64_t full = axis.groups / length, tail = axis.groups % length;
    const int64_t per_row = full + (tail != 0 ? 1 : 0);
    const int64_t size = length * axis.run;
    const int64_t grain = size < kGrain ? kGrain / size : 1;
    parallel_pieces(axis.outer * per_row, grain, threads, [&](int64_t begin, int64_t end) {
        while (begin < end) {
            const int64_t row = begin / per_row, group = begin % per_row;
            const int64_t offset = row * axis.row_length() + group * size;
            const bool is_tail = group == full;
            const int64_t count = is_tail ? 1 : std::min(full - group, end - begin);
            body(Groups{begin, count, is_tail ? tail : length, offset});
            begin += count;
        }
    });
}

uint64_t bits_of(double value) {
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// Squared norms of all blocks, and how many elements each stands for.
class BlockNorms {
public:
    template <typename Bits>
    BlockNorms(const Bits* values, const GroupLayout& axis, int64_t block_size, int threads)
        : axis_(axis),
          block_size_(block_size),
          per_row_((axis.groups + block_size - 1) / block_size),
          threads_(threads),
          norms_(static_cast<size_t>(axis.outer * per_row_ * axis.run)) {
        parallel_groups(axis, block_size, threads, [&](const Groups& blocks) {
            double* const sums = norms_.data() + blocks.first * axis.run;
            const auto& loops = kernels_for<Bits>(kernels());
            loops.sum_block_squares(values + blocks.offset, blocks.count, blocks.length, axis.run, sums);
        });
    }

    const double* data() const { return norms_.data(); }

    // Bits of doubles that are not negative sort as the doubles do. Two counts of 16 bits leave few to be sorted.
    double of_rank(int64_t rank) const {
        const int64_t count = static_cast<int64_t>(norms_.size());
        const uint64_t high = find_rank(count_places(48, 0), rank);
        const uint64_t upper = high << 16 | find_rank(count_places(32, high), rank);
        std::vector<int64_t> places;
        std::mutex mutex;
        parallel_pieces(count, kGrain, threads_, [&](int64_t begin, int64_t end) {
            std::vector<int64_t> found;
            for (int64_t i = begin; i < end; ++i) {
                if (bits_of(norms_[static_cast<size_t>(i)]) >> 32 == upper) found.push_back(i);
            }
            const std::lock_guard<std::mutex> lock(mutex);
            places.insert(places.end(), found.begin(), found.end());
        });
        const auto norm = [this](int64_t place) { return norms_[static_cast<size_t>(place)]; };
        std::sort(places.begin(), places.end(), [&](int64_t a, int64_t b) { return norm(a) < norm(b); });
        size_t at = 0;
        while (rank >= elements(places[at])) rank -= elements(places[at++]);
        return norm(places[at]);
    }

private:
    // The number of elements that a norm stands for.
    int64_t elements(int64_t place) const {
        const int64_t block = place / axis_.run % per_row_;
        return std::min(block_size_, axis_.groups - block * block_size_);
    }

    // Counts elements by 16 bits of their norm from `shift` on, among those whose bits above are `prefix`.
    Counts count_places(int shift, uint64_t prefix) const {
        return count_slots(
            static_cast<int64_t>(norms_.size()), threads_, [&](int64_t begin, int64_t end, SlotCounter& to) {
                const bool same_length = axis_.groups % block_size_ == 0;
                while (begin < end) {
                    const int64_t block_end = same_length ? end : std::min(end, (begin / axis_.run + 1) * axis_.run);
                    const int64_t weight = elements(begin);
                    for (; begin < block_end; ++begin) {
                        const uint64_t bits = bits_of(norms_[static_cast<size_t>(begin)]) >> shift;
                        if (bits >> 16 == prefix) to.total[bits & 0xffff] += weight;
                    }
                }
            });
    }

    GroupLayout axis_;
    int64_t block_size_;
    int64_t per_row_;
    int threads_;
    std::vector<double> norms_;
};

}  // namespace

template <typename Bits>
void n_m_mask(const Bits* values, const GroupLayout& axis, int64_t n, int64_t m, int threads, uint8_t* keep) {
    const GroupLayout layout = joined(axis, m);
    parallel_groups(layout, m, threads, [&](const Groups& groups) {
        const int64_t zeroed = std::max(int64_t{0}, n - (m - groups.length));
        const auto& loops = kernels_for<Bits>(kernels());
        loops.keep_largest(values + groups.offset, groups.count, groups.length, layout.run, zeroed,
                           keep + groups.offset);
    });
}

template <typename Bits>
void block_mask(const Bits* values, const GroupLayout& axis, int64_t block_size, int64_t rank, int threads,
                uint8_t* keep) {
    const GroupLayout layout = joined(axis, block_size);
    const BlockNorms norms(values, layout, block_size, threads);
    const double limit = norms.of_rank(rank);
    parallel_groups(layout, block_size, threads, [&](const Groups& blocks) {
        const double* const sums = norms.data() + blocks.first * layout.run;
        kernels().keep_blocks_above(sums, blocks.count, blocks.length, layout.run, limit, keep + blocks.offset);
    });
}

template <typename Bits>
int64_t mask_of_kept(const Bits* values, const uint8_t* keep, int64_t count, int threads, uint8_t* mask) {
    std::atomic<int64_t> ones{0};
    parallel_pieces(count, kGrain, threads, [&](int64_t begin, int64_t end) {
        const auto& loops = kernels_for<Bits>(kernels());
        ones += loops.mask_of_kept(values + begin, keep + begin, end - begin, mask + begin / 8);
    });
    return ones;
}

template void n_m_mask(const uint16_t*, const GroupLayout&, int64_t, int64_t, int, uint8_t*);
template void n_m_mask(const BFloat16Bits*, const GroupLayout&, int64_t, int64_t, int, uint8_t*);
template void n_m_mask(const uint32_t*, const GroupLayout&, int64_t, int64_t, int, uint8_t*);
template void block_mask(const uint16_t*, const GroupLayout&, int64_t, int64_t, int, uint8_t*);
template void block_mask(const BFloat16Bits*, const GroupLayout&, int64_t, int64_t, int, uint8_t*);
template void block_mask(const uint32_t*, const GroupLayout&, int64_t, int64_t, int, uint8_t*);
template int64_t mask_of_kept(const uint16_t*, const uint8_t*, int64_t, int, uint8_t*);
template int64_t mask_of_kept(const BFloat16Bits*, const uint8_t*, int64_t, int, uint8_t*);
template int64_t mask_of_kept(const uint32_t*, const uint8_t*, int64_t, int, uint8_t*);

}  // namespace corepress
