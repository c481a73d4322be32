#include <cmath>

#include "algo/soft_kmeans/nearby.h"
#include "algo/soft_kmeans/points.h"
#include "core/stop.h"
#include "dispatch.h"

namespace corepress {
namespace {

struct RoundSums {
    std::vector<double> entries;  // [entries, 1 + length]: weights, and weights times components
    double inertia = 0;
};

// The sums of a round, over pieces in their order.
template <typename Bits>
RoundSums sums_of(const OrderedGroup<Bits>& ordered, const StandIns& points, const RoundEntries& entries, int threads) {
    const SoftGroup<Bits>& group = ordered.group();
    const SoftEntries view = entries.view();
    const int64_t total = points.any() ? static_cast<int64_t>(points.values.size()) : group.count;
    const int64_t width = 1 + group.length;
    std::vector<RoundSums> pieces(static_cast<std::size_t>(pieces_of(total)));
    for_each_piece(total, threads, [&](int64_t piece, int64_t begin, int64_t end) {
        const KernelTable& table = kernels();
        SoftScratch scratch(view.count, view.length);
        RoundSums& sums = pieces[static_cast<std::size_t>(piece)];
        sums.entries.assign(static_cast<std::size_t>(view.count * width), 0);
        std::vector<double> lanes(static_cast<std::size_t>(view.count * width * 8));
        SoftTile tile = scratch.tile();
        std::vector<double> whole(static_cast<std::size_t>(width)), room;
        TileEntries<Bits> near(entries, ordered);
        for (int64_t t = begin; t < end; ++t) {
            if (t % kTilesOfBlock == 0) check_stop();
            load_tile(group, points, t, tile);
            near.find(tile, t);
            const int64_t first = near.first(), last = near.last();
            table.soft_shares(tile.planes, near.view(), first, last, scratch.shares.data(), scratch.nearest.data());
            double* const own = near.take(lanes.data(), width * 8, room);
            table.soft_sums(tile.planes, tile.multiplicity, scratch.shares.data(), near.view(), first, last, own);
            near.put_back(lanes.data(), width * 8, own);
            for (int64_t i = 0; i < kSoftPoints; ++i) {
                const double times = tile.multiplicity[i];
                sums.inertia += times > 0 ? times * scratch.nearest[static_cast<std::size_t>(i)] : 0;
            }
            if (near.are_all()) continue;
            whole.assign(whole.size(), 0);
            for (int64_t i = 0; i < kSoftPoints; ++i) {
                const double times = tile.multiplicity[i];
                whole[0] += times;
                for (int64_t d = 0; d < view.length; ++d) {
                    whole[static_cast<std::size_t>(1 + d)] += times * tile.planes[d * kSoftPoints + i];
                }
            }
            near.for_each_other([&](int64_t j) {
                for (int64_t d = 0; d < width; ++d) {
                    sums.entries[static_cast<std::size_t>(j * width + d)] +=
                        view.smallest * whole[static_cast<std::size_t>(d)];
                }
            });
        }
        add_up(lanes, sums.entries.data());
    });
    RoundSums all = std::move(pieces[0]);
    for (std::size_t piece = 1; piece < pieces.size(); ++piece) {
        for (std::size_t i = 0; i < all.entries.size(); ++i) all.entries[i] += pieces[piece].entries[i];
        all.inertia += pieces[piece].inertia;
    }
    return all;
}

}  // namespace

template <typename Bits>
int64_t soft_forward(const SoftGroup<Bits>& given, const SoftOptions& options, const SoftTape& tape, int threads,
                     Bits* results) {
    const OrderedGroup<Bits> ordered(given, tape.centroids);
    const SoftGroup<Bits>& group = ordered.group();
    const int64_t count = group.entries, length = group.length, width = 1 + length;
    const auto gap_at = [&](int64_t at) {
        return length == 1 ? widest_gap(tape.centroids + at * count, count, options.threshold) : 0;
    };
    StandIns points = stand_ins<Bits>(group, nullptr, gap_at(0), options, threads);
    double last_inertia = 0;
    int64_t round = 0;
    while (round < options.rounds) {
        const double* const now = tape.centroids + round * count * length;
        double* const next = tape.centroids + (round + 1) * count * length;
        if (points.any() && !are_close(points, gap_at(round), options)) {
            points = stand_ins<Bits>(group, nullptr, gap_at(round), options, threads);
        }
        const RoundEntries entries(now, count, length, options);
        const RoundSums sums = sums_of(ordered, points, entries, threads);
        std::vector<double> restored(sums.entries.size());
        entries.restore(sums.entries.data(), width, restored.data());
        for (int64_t j = 0; j < count; ++j) {
            const double weight = restored[static_cast<std::size_t>(j * width)];
            tape.sums[round * count + j] = weight;
            for (int64_t d = 0; d < length; ++d) {
                const double moved = restored[static_cast<std::size_t>(j * width + 1 + d)] / weight;
                // Entries that nothing is near stay where they are.
                next[j * length + d] = options.enforce_zero && j == 0 ? 0 : weight > 0 ? moved : now[j * length + d];
            }
        }
        ++round;
        if (round > 1 && std::fabs(last_inertia - sums.inertia) <= options.tolerance) break;
        last_inertia = sums.inertia;
    }
    const double* const before = tape.centroids + (round - 1) * count * length;
    const RoundEntries entries(before, count, length, options);
    const SoftEntries view = entries.view();
    const std::vector<double> next = entries.ordered(before + count * length, length);
    std::vector<double> heads(static_cast<std::size_t>((count + 1) * length), 0);  // sums of the entries before each
    for (std::size_t i = 0; i < next.size(); ++i) heads[i + static_cast<std::size_t>(length)] = heads[i] + next[i];
    std::vector<double> of_points(points.values.size());
    const int64_t total = points.any() ? static_cast<int64_t>(points.values.size()) : group.count;
    for_each_piece(total, threads, [&](int64_t, int64_t begin, int64_t end) {
        const KernelTable& table = kernels();
        SoftScratch scratch(count, length);
        SoftTile tile = scratch.tile();
        TileEntries<Bits> near(entries, ordered);
        std::vector<double> vectors = next, room;
        for (int64_t t = begin; t < end; ++t) {
            if (t % kTilesOfBlock == 0) check_stop();
            load_tile(group, points, t, tile);
            near.find(tile, t);
            const int64_t first = near.first(), last = near.last();
            table.soft_shares(tile.planes, near.view(), first, last, scratch.shares.data(), scratch.nearest.data());
            for (int64_t d = 0; d < length; ++d) {
                const auto at = [&](int64_t j) { return heads[static_cast<std::size_t>(j * length + d)]; };
                double others = near.are_selected() ? 0 : at(first) + (at(count) - at(last));
                if (near.are_selected()) {
                    near.for_each_other([&](int64_t j) { others += next[static_cast<std::size_t>(j * length + d)]; });
                }
                others *= view.smallest;
                std::fill_n(scratch.results.begin() + d * kSoftPoints, kSoftPoints, others);
            }
            table.soft_means(scratch.shares.data(), near.view(), near.take(vectors.data(), length, room), first, last,
                             scratch.results.data());
            for (int64_t i = 0; i < tile.count; ++i) {
                if (points.any()) {
                    of_points[static_cast<std::size_t>(t * kSoftPoints + i)] =
                        scratch.results[static_cast<std::size_t>(i)];
                    continue;
                }
                for (int64_t d = 0; d < length; ++d) {
                    const double number = scratch.results[static_cast<std::size_t>(d * kSoftPoints + i)];
                    results[ordered.place(t * kSoftPoints + i) * length + d] =
                        Format<Bits>::from_float(static_cast<float>(number));
                }
            }
        }
    });
    if (points.any()) {
        of_points.push_back(0);
        parallel_pieces(group.count, kGrain, threads, [&](int64_t begin, int64_t end) {
            check_stop();
            for (int64_t i = begin; i < end; ++i) {
                const Between between = place_of(points, group.values[i]);
                const auto place = static_cast<std::size_t>(between.place);
                const double number = of_points[place] + (of_points[place + 1] - of_points[place]) * between.share;
                results[i] = Format<Bits>::from_float(static_cast<float>(number));
            }
        });
    }
    return round;
}

template int64_t soft_forward(const SoftGroup<uint16_t>&, const SoftOptions&, const SoftTape&, int, uint16_t*);
template int64_t soft_forward(const SoftGroup<BFloat16Bits>&, const SoftOptions&, const SoftTape&, int, BFloat16Bits*);
template int64_t soft_forward(const SoftGroup<uint32_t>&, const SoftOptions&, const SoftTape&, int, uint32_t*);

}  // namespace corepress
