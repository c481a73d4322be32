// k-means of vectors. (Of numbers: kmeans1d.)
#pragma once

#include <cstdint>
#include <vector>

#include "algo/vectors/vector_entries.h"
#include "algo/vectors/vector_group.h"
#include "algo/vectors/vector_sample.h"
#include "core/workspace.h"

namespace corepress {

// Lloyd's rounds from the best of a few greedy k-means++ starts: on a small sample, on ever larger ones until the error
// hardly falls, and once on all vectors. Where there are few vectors for each entry, momentum and samples do harm: the
// result is then the better of that and of plain rounds on all vectors. An object keeps its memory between problems.
class VectorKmeans {
public:
    // Afterwards entries(): [k, length], of the vectors times the group's factor, in no order. There should be more
    // distinct vectors than k.
    template <typename Bits>
    void fit(const VectorGroup<Bits>& group, int64_t k, int threads);

    const std::vector<float>& entries() const { return entries_; }

private:
    struct Piece {
        double error = 0;
        double farthest = -1;
        int64_t farthest_index = -1;
    };

    void start_best(int starts, double least_gain, int threads);
    void start(int64_t count, uint64_t counter);
    void choose(int64_t entry, int64_t index, int64_t padded);
    int64_t drawn(double place, int64_t count) const;
    double descend(int64_t count, double least_gain, int threads);
    void start_plainly(int threads);
    double settle(int threads);
    template <typename Source>
    double descend_once(const Source& source, int64_t count, bool blindly, int threads);
    void update_entries(int64_t pieces, int64_t width);

    int64_t k_ = 0, length_ = 0;
    VectorSample sample_;
    std::vector<float> entries_, best_entries_, last_entries_, steps_;
    VectorEntries table_;
    std::vector<float> nearest_, trial_, best_trial_;  // squared distances of the start
    std::vector<double> tile_sums_, trial_sums_, best_sums_;
    std::vector<double> sums_;  // of pieces, entries, components; and their weights
    std::vector<Piece> pieces_;
    WorkspacePool<VectorTile> tiles_;
    bool relocated_ = false, has_momentum_ = false;
};

}  // namespace corepress
