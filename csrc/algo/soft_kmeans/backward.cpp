#include <algorithm>

#include "algo/soft_kmeans/nearby.h"
#include "algo/soft_kmeans/points.h"
#include "core/stop.h"
#include "dispatch.h"

namespace corepress {
namespace {

// The gradient by points, in parts: what is multiplied by that of the result, and what is added.
struct PointSlopes {
    std::vector<double> factors, terms;
};

// The gradient by values, added up over rounds: in the results themselves, where these are floats.
template <typename Bits>
class Sums {
public:
    explicit Sums(Bits* results) : results_(results) {}
    void clear(int64_t count) {
        if constexpr (kInResults) {
            std::fill_n(results_, count, Bits{0});
        } else {
            sums_.assign(static_cast<std::size_t>(count), 0);
        }
    }
    float at(int64_t i) const {
        if constexpr (kInResults) {
            return Format<Bits>::to_float(results_[i]);
        } else {
            return sums_[static_cast<std::size_t>(i)];
        }
    }
    void add(int64_t i, double number) {
        const float sum = at(i) + static_cast<float>(number);
        if constexpr (kInResults) {
            results_[i] = Format<Bits>::from_float(sum);
        } else {
            sums_[static_cast<std::size_t>(i)] = sum;
        }
    }

private:
    static constexpr bool kInResults = sizeof(Bits) == sizeof(float);
    Bits* results_;
    std::vector<float> sums_;
};

// Loads the gradient of a tile of values, or its sums at points.
template <typename Bits>
void load_slopes(const OrderedGroup<Bits>& ordered, const StandIns& points, const Bits* gradient, int64_t t,
                 const SoftTile& tile, double* slopes) {
    const SoftGroup<Bits>& group = ordered.group();
    if (!points.any() && tile.count == kSoftPoints && !ordered.is_sorted()) {
        const Bits* const numbers = gradient + t * kSoftPoints * group.length;
        for (int64_t d = 0; d < group.length; ++d) {
            for (int64_t i = 0; i < kSoftPoints; ++i) {
                slopes[d * kSoftPoints + i] =
                    static_cast<double>(Format<Bits>::to_float(numbers[i * group.length + d]));
            }
        }
        return;
    }
    for (int64_t d = 0; d < group.length; ++d) {
        for (int64_t i = 0; i < kSoftPoints; ++i) {
            const int64_t place = t * kSoftPoints + i;
            double slope = 0;
            if (i < tile.count) {
                slope = points.any() ? points.slopes[static_cast<std::size_t>(place)]
                                     : static_cast<double>(
                                           Format<Bits>::to_float(gradient[ordered.place(place) * group.length + d]));
            }
            slopes[d * kSoftPoints + i] = slope;
        }
    }
}

// One pass over all tiles, whose slopes are loaded if they are wanted: body(table, scratch, tile number, tile, near
// entries, lanes, sums) adds to `lanes` numbers, whose sums, over pieces in their order, are returned.
template <typename Bits, typename Body>
std::vector<double> pass(const OrderedGroup<Bits>& ordered, const StandIns& points, const Bits* gradient,
                         const RoundEntries& entries, bool with_slopes, int64_t lanes_of_entry, int threads,
                         const Body& body) {
    const SoftGroup<Bits>& group = ordered.group();
    const SoftEntries view = entries.view();
    const int64_t total = points.any() ? static_cast<int64_t>(points.values.size()) : group.count;
    const auto numbers = static_cast<std::size_t>(view.count * lanes_of_entry);
    std::vector<std::vector<double>> pieces(static_cast<std::size_t>(pieces_of(total)));
    for_each_piece(total, threads, [&](int64_t piece, int64_t begin, int64_t end) {
        const KernelTable& table = kernels();
        SoftScratch scratch(view.count, view.length);
        std::vector<double> lanes(numbers * 8);
        auto& sums = pieces[static_cast<std::size_t>(piece)];
        sums.assign(numbers, 0);
        SoftTile tile = scratch.tile();
        TileEntries<Bits> near(entries, ordered);
        for (int64_t t = begin; t < end; ++t) {
            if (t % kTilesOfBlock == 0) check_stop();
            load_tile(group, points, t, tile);
            if (with_slopes) load_slopes(ordered, points, gradient, t, tile, scratch.slopes.data());
            near.find(tile, t);
            table.soft_shares(tile.planes, near.view(), near.first(), near.last(), scratch.shares.data(),
                              scratch.nearest.data());
            body(table, scratch, t, tile, near, lanes.data(), sums.data());
        }
        add_up(lanes, sums.data());
    });
    std::vector<double> all = std::move(pieces[0]);
    for (std::size_t piece = 1; piece < pieces.size(); ++piece) {
        for (std::size_t i = 0; i < all.size(); ++i) all[i] += pieces[piece][i];
    }
    return all;
}

// H of the last round: the sums of the gradient, in parts of entries.
template <typename Bits>
std::vector<double> pulls_of_means(const OrderedGroup<Bits>& ordered, const StandIns& points, const Bits* gradient,
                                   const RoundEntries& entries, int threads) {
    const SoftEntries view = entries.view();
    const int64_t length = view.length, width = 1 + length;
    const std::vector<double> ones(static_cast<std::size_t>(kSoftPoints), 1);
    const std::vector<double> sums =
        pass(ordered, points, gradient, entries, true, width, threads,
             [&](const KernelTable& table, SoftScratch& scratch, int64_t, const SoftTile&,
                 const TileEntries<Bits>& near, double* lanes, double* others) {
                 double* const own = near.take(lanes, width * 8, scratch.taken);
                 table.soft_sums(scratch.slopes.data(), ones.data(), scratch.shares.data(), near.view(), near.first(),
                                 near.last(), own);
                 near.put_back(lanes, width * 8, own);
                 for (int64_t d = 0; d < length && !near.are_all(); ++d) {
                     double whole = 0;
                     for (int64_t i = 0; i < kSoftPoints; ++i) {
                         whole += scratch.slopes[static_cast<std::size_t>(d * kSoftPoints + i)];
                     }
                     near.for_each_other([&](int64_t j) { others[j * width + 1 + d] += view.smallest * whole; });
                 }
             });
    std::vector<double> pulls(static_cast<std::size_t>(view.count * length));
    for (int64_t j = 0; j < view.count; ++j) {
        for (int64_t d = 0; d < length; ++d) {
            pulls[static_cast<std::size_t>(j * length + d)] = sums[static_cast<std::size_t>(j * width + 1 + d)];
        }
    }
    std::vector<double> restored(pulls.size());
    entries.restore(pulls.data(), length, restored.data());
    return restored;
}

}  // namespace

template <typename Bits>
void soft_backward(const SoftGroup<Bits>& given, const Bits* gradient, const SoftOptions& options, int64_t rounds,
                   const SoftTape& tape, int threads, Bits* results) {
    const OrderedGroup<Bits> ordered(given, tape.centroids);
    const SoftGroup<Bits>& group = ordered.group();
    const int64_t count = group.entries, length = group.length;
    double gap = 0;
    for (int64_t round = 0; round < rounds && length == 1; ++round) {
        gap = std::max(gap, widest_gap(tape.centroids + round * count, count, options.threshold));
    }
    const StandIns points = stand_ins(group, gradient, gap, options, threads);
    PointSlopes slopes;
    Sums<Bits> sums(results);  // of the rounds, for values themselves
    if (points.any()) {
        slopes.factors.assign(points.values.size() + 1, 0);
        slopes.terms.assign(points.values.size() + 1, 0);
    } else {
        sums.clear(group.count * length);
    }
    const std::vector<double> ones(static_cast<std::size_t>(length * kSoftPoints), 1);
    std::vector<double> pulls;
    for (int64_t round = rounds; round-- > 0;) {
        const bool is_last = round + 1 == rounds;
        const RoundEntries entries(tape.centroids + round * count * length, count, length, options);
        const SoftEntries view = entries.view();
        if (is_last) pulls = pulls_of_means(ordered, points, gradient, entries, threads);
        for (int64_t j = 0; j < count; ++j) {
            const double weight = tape.sums[round * count + j];
            for (int64_t d = 0; d < length; ++d) {
                double& pull = pulls[static_cast<std::size_t>(j * length + d)];
                pull = (options.enforce_zero && j == 0) || !(weight > 0) ? 0 : pull / weight;
            }
        }
        std::vector<double> next = entries.ordered(tape.centroids + (round + 1) * count * length, length);
        std::vector<double> of_entries = entries.ordered(pulls.data(), length);
        std::vector<double> heads(static_cast<std::size_t>((count + 1) * length), 0);
        for (std::size_t i = 0; i < of_entries.size(); ++i) {
            heads[i + static_cast<std::size_t>(length)] = heads[i] + of_entries[i];
        }
        const std::vector<double> moved = pass(
            ordered, points, gradient, entries, is_last, length, threads,
            [&](const KernelTable& table, SoftScratch& scratch, int64_t t, const SoftTile& tile,
                const TileEntries<Bits>& near, double* lanes, double*) {
                const int64_t first = near.first(), last = near.last();
                double* const own = near.take(lanes, length * 8, scratch.taken);
                const double* const moved_to = near.take(next.data(), length, scratch.next);
                const double* const pulling = near.take(of_entries.data(), length, scratch.pulls);
                for (int64_t d = 0; d < length; ++d) {
                    const auto at = [&, d](int64_t j) { return heads[static_cast<std::size_t>(j * length + d)]; };
                    double others = near.are_selected() ? 0 : at(first) + (at(count) - at(last));
                    if (near.are_selected()) {
                        near.for_each_other(
                            [&](int64_t j) { others += of_entries[static_cast<std::size_t>(j * length + d)]; });
                    }
                    others *= view.smallest;
                    std::fill_n(scratch.results.begin() + d * kSoftPoints, kSoftPoints, others);
                }
                table.soft_means(scratch.shares.data(), near.view(), pulling, first, last, scratch.results.data());
                const bool with_slopes = is_last && !points.any();
                table.soft_slopes(tile.planes, tile.multiplicity, scratch.shares.data(), near.view(),
                                  {moved_to, pulling, with_slopes ? scratch.slopes.data() : nullptr}, first, last,
                                  scratch.changes.data(), scratch.results.data(), own);
                near.put_back(lanes, length * 8, own);
                const int64_t begin = t * kSoftPoints;
                if (!points.any()) {
                    for (int64_t i = 0; i < tile.count; ++i) {
                        for (int64_t d = 0; d < length; ++d) {
                            sums.add(ordered.place(begin + i) * length + d,
                                     scratch.results[static_cast<std::size_t>(d * kSoftPoints + i)]);
                        }
                    }
                    return;
                }
                for (int64_t i = 0; i < tile.count; ++i) {
                    slopes.terms[static_cast<std::size_t>(begin + i)] += scratch.results[static_cast<std::size_t>(i)];
                }
                if (!is_last) return;
                std::fill(scratch.results.begin(), scratch.results.end(), 0.0);
                table.soft_slopes(tile.planes, scratch.slopes.data(), scratch.shares.data(), view,
                                  {next.data(), nullptr, ones.data()}, first, last, scratch.changes.data(),
                                  scratch.results.data(), lanes);
                for (int64_t i = 0; i < tile.count; ++i) {
                    slopes.factors[static_cast<std::size_t>(begin + i)] = scratch.results[static_cast<std::size_t>(i)];
                }
            });
        entries.restore(moved.data(), length, pulls.data());
    }
    const int64_t numbers = group.count * length;
    parallel_pieces(numbers, kGrain, threads, [&](int64_t begin, int64_t end) {
        check_stop();
        for (int64_t i = begin; i < end; ++i) {
            if (!points.any()) {
                results[i] = Format<Bits>::from_float(sums.at(i));
                continue;
            }
            const Between between = place_of(points, group.values[i]);
            const auto place = static_cast<std::size_t>(between.place);
            const double share = between.share, slope = static_cast<double>(Format<Bits>::to_float(gradient[i]));
            const auto at = [&](const std::vector<double>& of) {
                return of[place] + (of[place + 1] - of[place]) * share;
            };
            results[i] = Format<Bits>::from_float(static_cast<float>(slope * at(slopes.factors) + at(slopes.terms)));
        }
    });
}

template void soft_backward(const SoftGroup<uint16_t>&, const uint16_t*, const SoftOptions&, int64_t, const SoftTape&,
                            int, uint16_t*);
template void soft_backward(const SoftGroup<BFloat16Bits>&, const BFloat16Bits*, const SoftOptions&, int64_t,
                            const SoftTape&, int, BFloat16Bits*);
template void soft_backward(const SoftGroup<uint32_t>&, const uint32_t*, const SoftOptions&, int64_t, const SoftTape&,
                            int, uint32_t*);

}  // namespace corepress
