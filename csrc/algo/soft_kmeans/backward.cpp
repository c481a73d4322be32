#include <algorithm>

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
void load_slopes(const SoftGroup<Bits>& group, const StandIns& points, const Bits* gradient, int64_t t,
                 const SoftTile& tile, double* slopes) {
    if (!points.any() && tile.count == kSoftPoints) {
        const Bits* const numbers = gradient + t * kSoftPoints * group.length;
        for (int64_t d = 0; d < group.length; ++d) {
            for (int64_t i = 0; i < kSoftPoints; ++i) {
                slopes[d * kSoftPoints + i] = static_cast<double>(Format<Bits>::to_float(numbers[i * group.length + d]));
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
                                     : static_cast<double>(Format<Bits>::to_float(gradient[place * group.length + d]));
            }
            slopes[d * kSoftPoints + i] = slope;
        }
    }
}

// One pass over all tiles, whose slopes are loaded if they are wanted: body(table, scratch, tile number, tile, window,
// lanes, sums) adds to `lanes` numbers, whose sums, over pieces in their order, are returned.
template <typename Bits, typename Body>
std::vector<double> pass(const SoftGroup<Bits>& group, const StandIns& points, const Bits* gradient,
                         const RoundEntries& entries, bool with_slopes, int64_t lanes_of_entry, int threads,
                         const Body& body) {
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
        for (int64_t t = begin; t < end; ++t) {
            check_stop();
            load_tile(group, points, t, tile);
            if (with_slopes) load_slopes(group, points, gradient, t, tile, scratch.slopes.data());
            const auto window = entries.near(tile.lowest, tile.highest);
            table.soft_shares(tile.planes, view, window.first, window.second, scratch.shares.data(),
                              scratch.nearest.data());
            body(table, scratch, t, tile, window, lanes.data(), sums.data());
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
std::vector<double> pulls_of_means(const SoftGroup<Bits>& group, const StandIns& points, const Bits* gradient,
                                   const RoundEntries& entries, int threads) {
    const SoftEntries view = entries.view();
    const int64_t length = group.length, width = 1 + length;
    const std::vector<double> ones(static_cast<std::size_t>(kSoftPoints), 1);
    const std::vector<double> sums = pass(group, points, gradient, entries, true, width, threads,
                                          [&](const KernelTable& table, SoftScratch& scratch, int64_t, const SoftTile&,
                                              const auto& window, double* lanes, double* others) {
                                              table.soft_sums(scratch.slopes.data(), ones.data(), scratch.shares.data(),
                                                              view, window.first, window.second, lanes);
                                              if (window.first == 0 && window.second == view.count) return;
                                              for (int64_t d = 0; d < length; ++d) {
                                                  double whole = 0;
                                                  for (int64_t i = 0; i < kSoftPoints; ++i) {
                                                      whole +=
                                                          scratch.slopes[static_cast<std::size_t>(d * kSoftPoints + i)];
                                                  }
                                                  for (int64_t j = 0; j < view.count; ++j) {
                                                      if (j == window.first) j = window.second;
                                                      if (j >= view.count) break;
                                                      others[j * width + 1 + d] += view.smallest * whole;
                                                  }
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
void soft_backward(const SoftGroup<Bits>& group, const Bits* gradient, const SoftOptions& options, int64_t rounds,
                   const SoftTape& tape, int threads, Bits* results) {
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
        if (is_last) pulls = pulls_of_means(group, points, gradient, entries, threads);
        for (int64_t j = 0; j < count; ++j) {
            const double weight = tape.sums[round * count + j];
            for (int64_t d = 0; d < length; ++d) {
                double& pull = pulls[static_cast<std::size_t>(j * length + d)];
                pull = (options.enforce_zero && j == 0) || !(weight > 0) ? 0 : pull / weight;
            }
        }
        const std::vector<double> next = entries.ordered(tape.centroids + (round + 1) * count * length, length);
        const std::vector<double> of_entries = entries.ordered(pulls.data(), length);
        std::vector<double> heads(static_cast<std::size_t>((count + 1) * length), 0);
        for (std::size_t i = 0; i < of_entries.size(); ++i) {
            heads[i + static_cast<std::size_t>(length)] = heads[i] + of_entries[i];
        }
        const std::vector<double> moved = pass(
            group, points, gradient, entries, is_last, length, threads,
            [&](const KernelTable& table, SoftScratch& scratch, int64_t t, const SoftTile& tile, const auto& window,
                double* lanes, double*) {
                const auto [first, last] = window;
                for (int64_t d = 0; d < length; ++d) {
                    const auto at = [&, d](int64_t j) { return heads[static_cast<std::size_t>(j * length + d)]; };
                    const double others = view.smallest * (at(window.first) + (at(count) - at(window.second)));
                    std::fill_n(scratch.results.begin() + d * kSoftPoints, kSoftPoints, others);
                }
                table.soft_means(scratch.shares.data(), view, of_entries.data(), first, last, scratch.results.data());
                const bool with_slopes = is_last && !points.any();
                table.soft_slopes(tile.planes, tile.multiplicity, scratch.shares.data(), view,
                                  {next.data(), of_entries.data(), with_slopes ? scratch.slopes.data() : nullptr},
                                  first, last, scratch.changes.data(), scratch.results.data(), lanes);
                const int64_t begin = t * kSoftPoints;
                if (!points.any()) {
                    for (int64_t i = 0; i < tile.count; ++i) {
                        for (int64_t d = 0; d < length; ++d) {
                            sums.add((begin + i) * length + d,
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
