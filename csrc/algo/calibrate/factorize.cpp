#include "algo/calibrate/factorize.h"

#include <algorithm>
#include <numeric>

#include "core/parallel.h"
#include "core/stop.h"
#include "dispatch.h"

namespace corepress {
namespace {

constexpr int64_t kPanel = 64;           // pivots between two updates of all that is behind them
constexpr int64_t kStrip = 32;           // columns of an update, whose part of a panel fits the first-level cache
constexpr double kLeastPivot = 0x1p-40;  // of the largest number of the diagonal
constexpr int64_t kTogether = 256;       // columns from which on one matrix is worth several threads

double added_to_diagonal(const SecondMoments& moments, int64_t group, int64_t block, int64_t columns,
                         double dampening) {
    double sum = 0;
    for (int64_t i = 0; i < columns; ++i) sum += moments.at(group, block, i, i);
    return dampening * (sum / static_cast<double>(columns));
}

}  // namespace

ColumnTiles::ColumnTiles(int64_t columns, bool is_triangle) : columns_(columns), is_triangle_(is_triangle) {
    const int64_t tiles = (columns + 3) / 4;
    data_ = std::make_unique<double[]>(static_cast<std::size_t>(begin(tiles)));  // zeros
}

std::vector<int64_t> falling_order(const SecondMoments& moments, int64_t group, int64_t block, int64_t columns) {
    std::vector<int64_t> order(static_cast<std::size_t>(columns));
    std::iota(order.begin(), order.end(), int64_t{0});
    std::vector<double> diagonal(order.size());
    for (const int64_t i : order) {
        const double square = moments.at(group, block, i, i);
        diagonal[static_cast<std::size_t>(i)] = square >= 0 ? square : 0;  // NaN has no order
    }
    std::sort(order.begin(), order.end(), [&](int64_t first, int64_t second) {
        const double a = diagonal[static_cast<std::size_t>(first)], b = diagonal[static_cast<std::size_t>(second)];
        return a > b || (a == b && first < second);
    });
    return order;
}

Factors factorize(const SecondMoments& moments, int64_t group, int64_t block, int64_t columns, double dampening,
                  int threads) {
    Factors factors{falling_order(moments, group, block, columns), ColumnTiles(columns, true),
                    std::vector<double>(static_cast<std::size_t>(columns))};
    if (columns < kTogether) threads = 1;
    const double damp = added_to_diagonal(moments, group, block, columns, dampening);
    // The last column of the order is eliminated first. Only the upper triangle is meant; what stands below is not
    // read.
    const auto remaining = std::make_unique<double[]>(static_cast<std::size_t>(columns * columns));
    const auto row_of = [&](int64_t row) { return remaining.get() + row * columns; };
    const auto reversed = [&](int64_t i) { return factors.order[static_cast<std::size_t>(columns - 1 - i)]; };
    double largest = 0;
    parallel_pieces(columns, kStrip, threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            for (int64_t j = i; j < columns; ++j) row_of(i)[j] = moments.at(group, block, reversed(i), reversed(j));
            row_of(i)[i] += damp;
        }
    });
    for (int64_t i = 0; i < columns; ++i) largest = std::max(largest, row_of(i)[i]);
    const double least = kLeastPivot * largest;
    const auto subtract_products = kernels().subtract_products;
    std::vector<double> multiplied(static_cast<std::size_t>(kPanel * columns));
    for (int64_t begin = 0; begin < columns; begin += kPanel) {
        check_stop();
        const int64_t end = std::min(begin + kPanel, columns);
        std::fill(multiplied.begin(), multiplied.end(), 0.0);
        for (int64_t i = begin; i < end; ++i) {
            double* const row = row_of(i);
            double* const scaled = multiplied.data() + (i - begin) * columns;
            subtract_products(multiplied.data() + i, columns, row_of(begin) + i, columns, i - begin, 1, columns - i,
                              row + i, columns);
            const double pivot = row[i];
            factors.pivots[static_cast<std::size_t>(columns - 1 - i)] = std::max(pivot, least);
            if (!(pivot > least)) continue;
            for (int64_t j = i + 1; j < columns; ++j) scaled[j] = row[j] / pivot;
            for (int64_t j = i + 1; j < columns; ++j) {
                factors.multipliers.at(columns - 1 - j, columns - 1 - i) = scaled[j];
            }
        }
        parallel_pieces(columns - end, kStrip, threads, [&](int64_t first, int64_t last) {
            subtract_products(multiplied.data() + end, columns, row_of(begin) + end + first, columns, end - begin, last,
                              last - first, row_of(end) + end + first, columns);
        });
    }
    return factors;
}

ColumnTiles relative_moments(const SecondMoments& moments, int64_t group, int64_t block,
                             const std::vector<int64_t>& order, double dampening, int threads) {
    const int64_t columns = static_cast<int64_t>(order.size());
    ColumnTiles tiles(columns, false);
    const double damp = added_to_diagonal(moments, group, block, columns, dampening);
    parallel_pieces(columns, kStrip, columns < kTogether ? 1 : threads, [&](int64_t begin, int64_t end) {
        for (int64_t j = begin; j < end; ++j) {
            const int64_t column = order[static_cast<std::size_t>(j)];
            const double own = moments.at(group, block, column, column) + damp;
            if (!(own > 0)) continue;
            for (int64_t k = 0; k < columns; ++k) {
                if (k == j) continue;
                tiles.at(k, j) = moments.at(group, block, order[static_cast<std::size_t>(k)], column) / own;
            }
        }
    });
    return tiles;
}

KeptFactors::KeptFactors(int64_t columns, const SecondMoments& moments, double dampening, int threads)
    : columns_(columns),
      groups_(moments.groups),
      size_(moments.size),
      count_((columns + moments.size - 1) / moments.size),
      dampening_(dampening),
      blocks_(static_cast<std::size_t>(groups_ * count_)) {
    const auto width = [&](int64_t index) { return std::min(size_, columns - index % count_ * size_); };
    std::vector<int64_t> sizes;
    for (int64_t index = 0; index < groups_ * count_; ++index) sizes.push_back(width(index) * width(index));
    parallel_jobs(
        sizes, threads,
        [&](int64_t index, int block_threads) {
            const int64_t group = index / count_, number = index % count_;
            BlockFactors& block = blocks_[static_cast<std::size_t>(index)];
            block.factors = std::make_shared<const Factors>(
                factorize(moments, group, number, width(index), dampening, block_threads));
            block.relative = std::make_shared<const ColumnTiles>(
                relative_moments(moments, group, number, block.factors->order, dampening, block_threads));
        },
        kLargeBlock);
}

int64_t KeptFactors::numbers(int64_t columns, const SecondMoments& moments) {
    int64_t found = 0;
    for (int64_t begin = 0; begin < columns; begin += moments.size) {
        const int64_t width = std::min(moments.size, columns - begin);
        found += width * width * 3 / 2;
    }
    return found * moments.groups;
}

}  // namespace corepress
