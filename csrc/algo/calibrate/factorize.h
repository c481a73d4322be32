// Second moments of inputs as factors that carry the error of one column to the next ones.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace corepress {

constexpr int64_t kLargeBlock = int64_t{1} << 18;  // numbers of a block that all threads factorize

// Second moments [groups, blocks, size, size] of inputs, block by block of `size` columns; float or double.
struct SecondMoments {
    const void* data;
    bool is_double;
    int64_t groups;
    int64_t blocks;
    int64_t size;

    // The mean of both numbers that stand for a pair of columns.
    double at(int64_t group, int64_t block, int64_t first, int64_t second) const {
        const int64_t base = ((group % groups) * blocks + block) * size * size;
        return (number(base + first * size + second) + number(base + second * size + first)) * 0.5;
    }

private:
    double number(int64_t place) const {
        return is_double ? static_cast<const double*>(data)[place]
                         : static_cast<double>(static_cast<const float*>(data)[place]);
    }
};

// Columns of four numbers side by side, each with the rows of that column's multipliers.
//
// The tile of columns 4t to 4t+3 is [depth, 4]: all rows, or for a triangle those up to its last column.
class ColumnTiles {
public:
    ColumnTiles(int64_t columns, bool is_triangle);
    const double* tile(int64_t column) const { return data_.get() + begin(column / 4); }
    double& at(int64_t row, int64_t column) { return data_[static_cast<std::size_t>(place(row, column))]; }
    double at(int64_t row, int64_t column) const { return data_[static_cast<std::size_t>(place(row, column))]; }

private:
    int64_t begin(int64_t tile) const { return is_triangle_ ? 8 * tile * (tile + 1) : tile * 4 * columns_; }
    int64_t place(int64_t row, int64_t column) const { return begin(column / 4) + row * 4 + column % 4; }

    int64_t columns_;
    bool is_triangle_;
    std::unique_ptr<double[]> data_;
};

// H = M D M^T of the columns of a block in an order, with M upper triangular, 1 on its diagonal.
struct Factors {
    std::vector<int64_t> order;  // columns by falling diagonal of H
    ColumnTiles multipliers;     // M
    std::vector<double> pivots;  // D
};

// The factors of the first `columns` columns of a block, after `dampening` times the mean of the diagonal is added to
// it. Pivots that rounding leaves nothing of become the least that does not vanish, and multiply nothing.
Factors factorize(const SecondMoments& moments, int64_t group, int64_t block, int64_t columns, double dampening,
                  int threads);

// H_kj / H_jj of the dampened moments, for the columns in an order; 0 where a column was never seen.
ColumnTiles relative_moments(const SecondMoments& moments, int64_t group, int64_t block,
                             const std::vector<int64_t>& order, double dampening, int threads);

// The columns of a block by falling diagonal; of equal ones the first.
std::vector<int64_t> falling_order(const SecondMoments& moments, int64_t group, int64_t block, int64_t columns);

// What carries errors within one block.
struct BlockFactors {
    std::shared_ptr<const Factors> factors;
    std::shared_ptr<const ColumnTiles> relative;  // null where no sweep needs it
};

// The factors of all blocks of the moments of a weight, for several roundings of it.
class KeptFactors {
public:
    KeptFactors(int64_t columns, const SecondMoments& moments, double dampening, int threads);
    // How many numbers those of a weight's moments are.
    static int64_t numbers(int64_t columns, const SecondMoments& moments);
    bool fit(int64_t columns, const SecondMoments& moments, double dampening) const {
        return columns == columns_ && moments.groups == groups_ && moments.size == size_ && dampening == dampening_;
    }
    const BlockFactors& of(int64_t group, int64_t number) const {
        return blocks_[static_cast<std::size_t>(group % groups_ * count_ + number)];
    }

private:
    int64_t columns_;
    int64_t groups_;
    int64_t size_;
    int64_t count_;  // blocks of a group that have columns
    double dampening_;
    std::vector<BlockFactors> blocks_;
};

}  // namespace corepress
