#include "algo/prune/structure.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "algo/prune/axis_groups.h"
#include "algo/prune/block_norms.h"
#include "algo/prune/mask_pieces.h"
#include "algo/prune/prune.h"
#include "core/half.h"
#include "core/parallel.h"
#include "core/workspace.h"
#include "dispatch.h"

namespace corepress {
namespace {

// Calls sink(offset, keep, count) for parts of the tensor, of any bounds, that are known at once.
template <typename Bits, typename Sink>
void find_n_m(const Bits* values, const GroupLayout& axis, int64_t n, int64_t m, int threads, const Sink& sink) {
    const auto& loops = kernels_for<Bits>(kernels());
    WorkspacePool<std::vector<uint8_t>> workspaces;
    parallel_groups(joined(axis, m), m, threads, [&](const auto& for_each) {
        auto keep = workspaces.borrow();
        int64_t begin = -1, filled = 0;
        for_each([&](const Groups& groups) {
            if (begin < 0) begin = groups.offset;
            keep->resize(std::max(keep->size(), static_cast<size_t>(filled + groups.size())));
            uint8_t* const out = keep->data() + filled;
            const int64_t zeroed = std::max(int64_t{0}, n - (m - groups.length));
            loops.keep_largest(values + groups.offset, groups.count, groups.length, groups.width, groups.stride, zeroed,
                               out);
            if (groups.is_one_run()) {
                filled += groups.size();
                return;
            }
            for (int64_t row = 0; row < groups.length; ++row) {
                sink(groups.offset + row * groups.stride, out + row * groups.width, groups.width);
            }
        });
        sink(begin, keep->data(), filled);
    });
}

// What threads find of the parts of a tensor.
template <typename Bits>
class Survey {
public:
    void add(int64_t ones, Bits largest) {
        ones_ += ones;
        if (largest >= Format<Bits>::kInfinity) is_finite_ = false;
    }
    Pruned result() const { return {ones_, is_finite_}; }

private:
    std::atomic<int64_t> ones_{0};
    std::atomic<bool> is_finite_{true};
};

}  // namespace

template <typename Bits>
void n_m_keep(const Bits* values, const GroupLayout& axis, int64_t n, int64_t m, int threads, uint8_t* keep) {
    find_n_m(values, axis, n, m, threads, [keep](int64_t offset, const uint8_t* found, int64_t count) {
        std::memcpy(keep + offset, found, static_cast<size_t>(count));
    });
}

template <typename Bits>
Pruned prune_n_m(const Bits* values, const GroupLayout& axis, int64_t n, int64_t m, int threads, uint8_t* mask,
                 Span<Bits> kept) {
    const GroupLayout layout = joined(axis, m);
    const int64_t size = m * layout.run;
    if (layout.groups % m == 0 && 8 * size <= kGroupsSize) {  // pieces of whole groups can begin at a byte of the mask
        const auto& loops = kernels_for<Bits>(kernels());
        const int64_t grain = kGroupsSize / size / 8 * 8 * size;
        return prune_pieces(values, layout.size(), grain, threads, mask, kept,
                            [&](const Bits* piece, int64_t count, uint8_t* mask_of_piece, Bits* largest) {
                                uint8_t keep[kGroupsSize];
                                loops.keep_largest(piece, count / size, m, layout.run, layout.run, n, keep);
                                return loops.mask_of_kept(piece, keep, count, mask_of_piece, largest);
                            });
    }
    const MaskBits<Bits> bits(values, axis.size(), mask);
    Survey<Bits> survey;
    find_n_m(values, axis, n, m, threads, [&](int64_t offset, const uint8_t* keep, int64_t count) {
        Bits largest = 0;
        const int64_t found = bits.set(offset, keep, count, &largest);
        survey.add(found, largest);
    });
    encode_sparse(values, axis.size(), mask, threads, kept);
    return survey.result();
}

template <typename Bits>
Pruned prune_blocks(const Bits* values, const GroupLayout& axis, int64_t block_size, int64_t rank, int threads,
                    uint8_t* mask, Span<Bits> kept) {
    const BlockNorms<Bits> norms(values, joined(axis, block_size), block_size, threads);
    const double limit = norms.of_rank(rank);
    const MaskBits<Bits> bits(values, axis.size(), mask);
    Survey<Bits> survey;
    WorkspacePool<std::vector<uint8_t>> workspaces;
    norms.for_each([&](const Groups& blocks, const double* sums) {
        auto keep = workspaces.borrow();
        int64_t found = 0;
        Bits largest = 0;
        if (blocks.is_one_run() && blocks.size() <= kGroupsSize) {
            keep->resize(static_cast<size_t>(kGroupsSize));
            kernels().keep_blocks_above(sums, blocks.count, blocks.length, blocks.width, limit, keep->data());
            found = bits.set(blocks.offset, keep->data(), blocks.size(), &largest);
        } else {
            const int64_t most = std::max(int64_t{1}, kGroupsSize / blocks.width);
            keep->resize(std::max(keep->size(), static_cast<size_t>(most * blocks.width)));
            kernels().keep_blocks_above(sums, 1, std::min(most, blocks.length), blocks.width, limit, keep->data());
            for (int64_t row = 0; row < blocks.length; row += most) {
                const int64_t rows = std::min(most, blocks.length - row);
                const int64_t offset = blocks.offset + row * blocks.stride;
                if (blocks.is_one_run()) {
                    found += bits.set(offset, keep->data(), rows * blocks.width, &largest);
                } else {
                    for (int64_t i = 0; i < rows; ++i) {
                        found += bits.set(offset + i * blocks.stride, keep->data(), blocks.width, &largest);
                    }
                }
            }
        }
        survey.add(found, largest);
    });
    encode_sparse(values, axis.size(), mask, threads, kept);
    return survey.result();
}

template void n_m_keep(const uint16_t*, const GroupLayout&, int64_t, int64_t, int, uint8_t*);
template void n_m_keep(const BFloat16Bits*, const GroupLayout&, int64_t, int64_t, int, uint8_t*);
template void n_m_keep(const uint32_t*, const GroupLayout&, int64_t, int64_t, int, uint8_t*);
template Pruned prune_n_m(const uint16_t*, const GroupLayout&, int64_t, int64_t, int, uint8_t*, Span<uint16_t>);
template Pruned prune_n_m(const BFloat16Bits*, const GroupLayout&, int64_t, int64_t, int, uint8_t*, Span<BFloat16Bits>);
template Pruned prune_n_m(const uint32_t*, const GroupLayout&, int64_t, int64_t, int, uint8_t*, Span<uint32_t>);
template Pruned prune_blocks(const uint16_t*, const GroupLayout&, int64_t, int64_t, int, uint8_t*, Span<uint16_t>);
template Pruned prune_blocks(const BFloat16Bits*, const GroupLayout&, int64_t, int64_t, int, uint8_t*,
                             Span<BFloat16Bits>);
template Pruned prune_blocks(const uint32_t*, const GroupLayout&, int64_t, int64_t, int, uint8_t*, Span<uint32_t>);

}  // namespace corepress
