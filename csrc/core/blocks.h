// A row-major tensor divided into blocks along any of its axes, each block with parameters of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace corepress {

// One part of the axes: `groups` parts of `length` entries each.
struct Split {
    int64_t groups = 1;
    int64_t length = 1;
};

// From the slowest part to the fastest. Blocks are numbered in row-major order of the splits' groups. The last split is
// a row: `row_groups` blocks, each with a run of `run` elements that lie together.
class BlockLayout {
public:
    // Neighbours that make one split together are joined, so that kernels meet few and long ones.
    explicit BlockLayout(const std::vector<Split>& splits) {
        for (const Split& split : splits) {
            groups_ *= split.groups;
            size_ *= split.groups * split.length;
            if (!splits_.empty() && splits_.back().length == 1) {
                splits_.back() = {splits_.back().groups * split.groups, split.length};
            } else if (!splits_.empty() && split.groups == 1) {
                splits_.back().length *= split.length;
            } else {
                splits_.push_back(split);
            }
        }
        if (splits_.empty()) splits_.emplace_back();
    }

    int64_t size() const { return size_; }
    int64_t groups() const { return groups_; }
    int64_t row_groups() const { return splits_.back().groups; }
    int64_t run() const { return splits_.back().length; }
    int64_t row_length() const { return row_groups() * run(); }
    // Neighbouring rows whose elements belong to the same blocks.
    int64_t rows_together() const { return splits_.size() > 1 ? splits_[splits_.size() - 2].length : 1; }
    // Blocks of the first split: contiguous parts of the tensor, none of which shares a block with another.
    int64_t slabs() const { return splits_.front().groups; }
    int64_t slab_size() const { return size_ / slabs(); }
    int64_t slab_groups() const { return groups_ / slabs(); }
    int64_t group_size() const { return size_ / groups_; }

    // The block at the start of a row.
    int64_t first_group(int64_t row) const {
        int64_t group = 0, scale = row_groups();
        for (std::size_t k = splits_.size() - 1; k-- > 0;) {
            row /= splits_[k].length;
            group += row % splits_[k].groups * scale;
            scale *= splits_[k].groups;
            row /= splits_[k].groups;
        }
        return group;
    }

    // Calls body(offset, length) for each run of a block, in memory order.
    template <typename Body>
    void for_each_run(int64_t group, Body&& body) const {
        int64_t inner = size_, first = 0, groups = groups_;
        for (const Split& split : splits_) {
            groups /= split.groups;
            inner /= split.groups;
            first += group / groups * inner;
            group %= groups;
            inner /= split.length;
        }
        visit(0, size_, first, body);
    }

private:
    template <typename Body>
    void visit(std::size_t k, int64_t inner, int64_t offset, Body& body) const {
        if (k + 1 == splits_.size()) return body(offset, splits_[k].length);
        inner /= splits_[k].groups * splits_[k].length;
        for (int64_t i = 0; i < splits_[k].length; ++i) visit(k + 1, inner, offset + i * inner, body);
    }

    std::vector<Split> splits_;
    int64_t groups_ = 1;
    int64_t size_ = 1;
};

// Short runs of many rows that share their blocks are taken by whole rows, with one entry per element of the row.
inline bool by_rows(const BlockLayout& layout) {
    return layout.run() == 1 || (layout.run() < 32 && layout.rows_together() >= 8);
}

// Divides [begin, end) of the flat tensor, in memory order, into calls of runs(group, offset, runs, length): whole runs
// of blocks in order, or a part of one.
template <typename Runs>
void walk_runs(const BlockLayout& layout, int64_t begin, int64_t end, const Runs& runs) {
    const int64_t row_length = layout.row_length(), run = layout.run();
    for (int64_t offset = begin; offset < end;) {
        const int64_t row = offset / row_length, column = offset - row * row_length;
        const int64_t left = end - offset, left_in_row = row_length - column;
        const int64_t skipped = column % run, until = left < left_in_row ? left : left_in_row;
        const int64_t whole = skipped > 0 ? 0 : until / run;
        const int64_t rest = run - skipped < until ? run - skipped : until;
        const int64_t count = whole > 0 ? whole : 1, length = whole > 0 ? run : rest;
        runs(layout.first_group(row) + column / run, offset, count, length);
        offset += count * length;
    }
}

// The same, but where the layout is taken by rows into calls of rows(group, column, offset, rows, columns): whole rows,
// or a part of one from `column` on; `group` is the block at the row's start.
template <typename Runs, typename Rows>
void walk(const BlockLayout& layout, int64_t begin, int64_t end, const Runs& runs, const Rows& rows) {
    if (!by_rows(layout)) return walk_runs(layout, begin, end, runs);
    const int64_t row_length = layout.row_length(), together = layout.rows_together();
    for (int64_t offset = begin; offset < end;) {
        const int64_t row = offset / row_length, column = offset - row * row_length;
        const int64_t group = layout.first_group(row);
        const int64_t left = end - offset, left_in_row = row_length - column;
        if (column > 0 || left < row_length) {
            const int64_t columns = left < left_in_row ? left : left_in_row;
            rows(group, column, offset, int64_t{1}, columns);
            offset += columns;
        } else {
            const int64_t whole = left / row_length, same = together - row % together;
            const int64_t count = whole < same ? whole : same;
            rows(group, column, offset, count, row_length);
            offset += count * row_length;
        }
    }
}

}  // namespace corepress
