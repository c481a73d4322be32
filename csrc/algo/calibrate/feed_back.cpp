#include "algo/calibrate/feed_back.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "core/half.h"
#include "core/parallel.h"
#include "core/rounding.h"
#include "core/stop.h"
#include "core/workspace.h"
#include "dispatch.h"

namespace corepress {
namespace {

constexpr int64_t kRows = kFeedbackRows;
constexpr int64_t kPanel = 32;                      // columns whose errors reach the ones behind them together
constexpr int64_t kMostCompared = 16;               // entries that are all compared, side by side
constexpr int64_t kMostFactors = int64_t{1} << 24;  // numbers of the factors that are held at a time
constexpr int64_t kVectorRoom = kFeedbackRows + kRows / 4;

double clipped(double value, double lowest, double highest) {
    if (!(value > lowest)) return lowest;  // NaN too
    return value < highest ? value : highest;
}

// One block of columns of one group, and what carries errors within it.
struct Block {
    int64_t group;
    int64_t begin;
    int64_t columns;
    int64_t number;  // of the block in its group
    std::shared_ptr<const Factors> factors;
    std::shared_ptr<const ColumnTiles> relative;
};

std::vector<Block> blocks_of(const MatrixShape& shape, const SecondMoments& moments) {
    std::vector<Block> blocks;
    for (int64_t group = 0; group < shape.groups; ++group) {
        for (int64_t begin = 0, number = 0; begin < shape.columns; begin += moments.size, ++number) {
            const int64_t columns = std::min(moments.size, shape.columns - begin);
            blocks.push_back({group, begin, columns, number, nullptr, nullptr});
        }
    }
    return blocks;
}

// Calls body(first, last) for runs of blocks whose factors fit the memory that is meant for them.
template <typename Body>
void by_batches(const std::vector<Block>& blocks, const Body& body) {
    for (std::size_t first = 0; first < blocks.size();) {
        int64_t held = 0;
        std::size_t last = first;
        while (last < blocks.size() && (last == first || held < kMostFactors)) {
            held += blocks[last].columns * blocks[last].columns;
            ++last;
        }
        body(first, last);
        first = last;
    }
}

// Calls body(block, threads) for each of several blocks.
template <typename Body>
void for_blocks(std::vector<Block>& blocks, std::size_t first, std::size_t last, int threads, const Body& body) {
    std::vector<int64_t> sizes;
    for (std::size_t i = first; i < last; ++i) sizes.push_back(blocks[i].columns * blocks[i].columns);
    parallel_jobs(
        sizes, threads,
        [&](int64_t index, int block_threads) { body(blocks[first + static_cast<std::size_t>(index)], block_threads); },
        kLargeBlock);
}

struct Workspace {
    std::vector<double> errors;     // [columns, kRows]: rounded less original
    std::vector<double> originals;  // [kPanel, kRows]
    std::vector<double> adjusted;   // [kPanel, kRows]
    std::vector<double> bounds;     // [entries - 1, kRows], between entries
    std::vector<double> ranks;      // of the weights of a panel
};

// Rounds the weights of some rows, column by column.
template <typename Bits>
class Rows {
public:
    Rows(const Bits* weight, const MatrixShape& shape, const Rounding& rounding, const std::vector<double>& middles,
         const FeedbackResult<Bits>& result, const Block& block, int64_t first, Workspace& work)
        : weight_(weight),
          shape_(shape),
          rounding_(rounding),
          middles_(middles),
          result_(result),
          block_(block),
          first_(first),
          count_(std::min(kRows, shape.rows - first)),
          work_(work) {
        work_.errors.resize(static_cast<std::size_t>(block.columns * kRows));
        work_.originals.resize(kPanel * kRows);
        work_.adjusted.resize(kPanel * kRows);
        if (rounding.kind != RoundingKind::kUnchanged) load_tables();
    }

    // The first pass; adds to the error of each row.
    void round(bool moves_mask, double* of_rows) {
        const auto& kernel = kernels();
        for (int64_t begin = 0; begin < block_.columns; begin += kPanel) {
            const int64_t end = load_panel(begin);
            for (int64_t j = begin; j < end; j += 4) {
                kernel.subtract_products(block_.factors->multipliers.tile(j), 4, errors(0), kRows, begin,
                                         std::min(end - j, int64_t{4}), kRows, adjusted(j - begin), kRows);
            }
            if (moves_mask) move_mask(begin, end);
            for (int64_t j = begin; j < end; ++j) {
                kernel.subtract_products(block_.factors->multipliers.tile(j) + begin * 4 + j % 4, 4, errors(begin),
                                         kRows, j - begin, 1, kRows, adjusted(j - begin), kRows);
                encode(j, begin);
                const double pivot = block_.factors->pivots[static_cast<std::size_t>(j)];
                for (int64_t row = 0; row < count_; ++row) {
                    const double missed = adjusted(j - begin)[row] - rounded_[row];
                    of_rows[row] += pivot * (missed * missed);
                }
            }
        }
    }

    // Errors of the codes or values that are there already.
    void load_errors() {
        for (int64_t begin = 0; begin < block_.columns; begin += kPanel) {
            const int64_t end = load_panel(begin);
            for (int64_t j = begin; j < end; ++j) {
                decode(j);
                keep_errors(j, begin);
            }
        }
    }

    // Rounds every column once more, with the errors of all others as they are by then.
    void sweep() {
        const auto& kernel = kernels();
        const ColumnTiles& factors = *block_.relative;
        for (int64_t begin = 0; begin < block_.columns; begin += kPanel) {
            const int64_t end = load_panel(begin);
            for (int64_t j = begin; j < end; ++j) {
                kernel.subtract_products(factors.tile(j) + (j + 1) * 4 + j % 4, 4, errors(j + 1), kRows, end - j - 1, 1,
                                         kRows, adjusted(j - begin), kRows);
            }
            for (int64_t j = begin; j < end; j += 4) {
                const int64_t some = std::min(end - j, int64_t{4});
                kernel.subtract_products(factors.tile(j) + end * 4, 4, errors(end), kRows, block_.columns - end, some,
                                         kRows, adjusted(j - begin), kRows);
                kernel.subtract_products(factors.tile(j), 4, errors(0), kRows, begin, some, kRows, adjusted(j - begin),
                                         kRows);
            }
            for (int64_t j = begin; j < end; ++j) {
                kernel.subtract_products(factors.tile(j) + begin * 4 + j % 4, 4, errors(begin), kRows, j - begin, 1,
                                         kRows, adjusted(j - begin), kRows);
                encode(j, begin);
            }
        }
    }

private:
    double* errors(int64_t column) { return work_.errors.data() + column * kRows; }
    double* adjusted(int64_t place) { return work_.adjusted.data() + place * kRows; }
    double* original(int64_t place) { return work_.originals.data() + place * kRows; }
    int64_t place_of(int64_t column) const {
        return block_.begin + block_.factors->order[static_cast<std::size_t>(column)];
    }
    int64_t offset(int64_t row, int64_t column) const {
        return (block_.group * shape_.rows + first_ + row) * shape_.columns + place_of(column);
    }
    int64_t code_offset(int64_t row, int64_t column) const {
        const int64_t rows = shape_.rows / rounding_.length;
        return (block_.group * rows + (first_ + row) / rounding_.length) * shape_.columns + place_of(column);
    }
    int64_t table_of(int64_t row, int64_t column) const {
        const int64_t own = rounding_.column_tables == nullptr
                                ? 0
                                : rounding_.column_tables[block_.group * shape_.columns + place_of(column)];
        return own + row_tables_[row];
    }

    void load_tables() {
        for (int64_t row = 0; row < kRows; ++row) {
            const int64_t known = std::min(row, count_ - 1);
            row_tables_[row] = rounding_.row_tables[block_.group * shape_.rows + first_ + known];
        }
        const int64_t bounds = rounding_.entry_count - 1;
        is_compared_ = rounding_.kind == RoundingKind::kPalette && rounding_.length == 1 &&
                       rounding_.column_tables == nullptr && rounding_.entry_count <= kMostCompared;
        if (!is_compared_) return;
        work_.bounds.resize(static_cast<std::size_t>(bounds * kRows));
        for (int64_t bound = 0; bound < bounds; ++bound) {
            for (int64_t row = 0; row < kRows; ++row) {
                work_.bounds[static_cast<std::size_t>(bound * kRows + row)] =
                    middles_[static_cast<std::size_t>(row_tables_[row] * bounds + bound)];
            }
        }
    }

    // Reads the weights of a panel; rows that are not there are zero.
    int64_t load_panel(int64_t begin) {
        check_stop();
        const int64_t end = std::min(begin + kPanel, block_.columns);
        for (int64_t j = begin; j < end; ++j) {
            double* const column = original(j - begin);
            const Bits* const from = weight_ + offset(0, j);
            for (int64_t row = 0; row < count_; ++row) {
                column[row] = static_cast<double>(Format<Bits>::to_float(from[row * shape_.columns]));
            }
            for (int64_t row = count_; row < kRows; ++row) column[row] = 0;
        }
        std::copy_n(work_.originals.data(), kPanel * kRows, work_.adjusted.data());
        return end;
    }

    void encode(int64_t column, int64_t begin) {
        const double* const values = adjusted(column - begin);
        switch (rounding_.kind) {
            case RoundingKind::kPalette: encode_entries(column, values); break;
            case RoundingKind::kAffine: encode_steps(column, values); break;
            default: encode_values(column, values);
        }
        if (result_.mask != nullptr) apply_mask(column);
        keep_errors(column, begin);
    }

    void keep_errors(int64_t column, int64_t begin) {
        double* const kept = errors(column);
        const double* const from = original(column - begin);
        for (int64_t row = 0; row < kRows; ++row) kept[row] = rounded_[row] - from[row];
    }

    void apply_mask(int64_t column) {
        for (int64_t row = 0; row < count_; ++row) {
            if (result_.mask[offset(row, column)] != 0) continue;
            rounded_[row] = 0;
            if (rounding_.kind == RoundingKind::kUnchanged) {
                result_.values[offset(row, column)] = 0;
            } else {
                result_.codes[offset(row, column)] = 0;
            }
        }
    }

    void encode_entries(int64_t column, const double* values) {
        if (rounding_.length > 1) return encode_vectors(column, values);
        double codes[kRows];
        if (is_compared_) {
            kernels().count_below(values, work_.bounds.data(), rounding_.entry_count - 1, codes);
        } else {
            for (int64_t row = 0; row < kRows; ++row) {
                const double* bounds = middles_.data() + table_of(row, column) * (rounding_.entry_count - 1);
                int64_t code = 0;
                for (int64_t half = rounding_.entry_count / 2; half > 0; half /= 2) {
                    code += bounds[code + half - 1] < values[row] ? half : 0;
                }
                codes[row] = static_cast<double>(code);
            }
        }
        for (int64_t row = 0; row < kRows; ++row) {
            const int64_t code = static_cast<int64_t>(codes[row]);
            rounded_[row] = rounding_.entries[table_of(row, column) * rounding_.entry_count + code];
            if (row < count_) result_.codes[code_offset(row, column)] = static_cast<uint8_t>(code);
        }
    }

    void encode_vectors(int64_t column, const double* values) {
        const int64_t length = rounding_.length, vectors = kRows / length;
        double planes[kRows * kVectorRoom] = {}, codes[kVectorRoom];
        for (int64_t row = 0; row < kRows; ++row) planes[row % length * kVectorRoom + row / length] = values[row];
        for (int64_t vector = 0; vector < vectors;) {
            const int64_t table = table_of(vector * length, column);
            int64_t end = vector + 1;
            while (end < vectors && table_of(end * length, column) == table) ++end;
            kernels().nearest_entries(planes + vector, kVectorRoom, length, end - vector,
                                      rounding_.entries + table * rounding_.entry_count * length, rounding_.entry_count,
                                      codes);
            for (int64_t i = vector; i < end; ++i) {
                const int64_t code = static_cast<int64_t>(codes[i - vector]);
                const double* const entry = rounding_.entries + (table * rounding_.entry_count + code) * length;
                for (int64_t component = 0; component < length; ++component) {
                    rounded_[i * length + component] = entry[component];
                }
                if (i * length < count_) result_.codes[code_offset(i * length, column)] = static_cast<uint8_t>(code);
            }
            vector = end;
        }
    }

    void encode_steps(int64_t column, const double* values) {
        for (int64_t row = 0; row < kRows; ++row) {
            const int64_t table = table_of(row, column);
            const double scale = rounding_.scales[table], zero_point = rounding_.zero_points[table];
            const double quotient =
                clipped(values[row] / scale, rounding_.lowest - zero_point, rounding_.highest - zero_point);
            const double steps = round_to_even(quotient);
            rounded_[row] = stored(steps * scale);
            if (row < count_) {
                result_.codes[offset(row, column)] = static_cast<uint8_t>(static_cast<int>(steps + zero_point));
            }
        }
    }

    void encode_values(int64_t column, const double* values) {
        constexpr Bits kLargest = static_cast<Bits>(Format<Bits>::kInfinity - 1);
        const double largest = static_cast<double>(Format<Bits>::to_float(kLargest));
        for (int64_t row = 0; row < kRows; ++row) {
            const Bits bits = bits_from_double<Bits>(clipped(values[row], -largest, largest));
            rounded_[row] = static_cast<double>(Format<Bits>::to_float(bits));
            if (row < count_) result_.values[offset(row, column)] = bits;
        }
    }

    // What the codes or values of a column stand for.
    void decode(int64_t column) {
        std::fill(rounded_, rounded_ + kRows, 0.0);
        for (int64_t row = 0; row < count_; ++row) {
            if (result_.mask != nullptr && result_.mask[offset(row, column)] == 0) continue;
            if (rounding_.kind == RoundingKind::kUnchanged) {
                rounded_[row] = static_cast<double>(Format<Bits>::to_float(result_.values[offset(row, column)]));
                continue;
            }
            const int64_t table = table_of(row, column);
            const int code = result_.codes[code_offset(row, column)];
            if (rounding_.kind == RoundingKind::kPalette) {
                const int64_t entry = std::min<int64_t>(code, rounding_.entry_count - 1);
                rounded_[row] =
                    rounding_
                        .entries[(table * rounding_.entry_count + entry) * rounding_.length + row % rounding_.length];
            } else {
                const double value =
                    rounding_.lowest < 0 ? static_cast<double>(static_cast<int8_t>(code)) : static_cast<double>(code);
                rounded_[row] = stored((value - rounding_.zero_points[table]) * rounding_.scales[table]);
            }
        }
    }

    static double stored(double value) {
        return static_cast<double>(Format<Bits>::to_float(bits_from_double<Bits>(value)));
    }

    // Makes as many weights of a panel zero as its mask has zeros: those that cost least by now, the first of equals.
    void move_mask(int64_t begin, int64_t end) {
        std::vector<double>& ranks = work_.ranks;
        ranks.clear();
        int64_t zeros = 0;
        for (int64_t j = begin; j < end; ++j) {
            for (int64_t row = 0; row < count_; ++row) {
                zeros += result_.mask[offset(row, j)] == 0;
                ranks.push_back(cost(j, begin, row));
            }
        }
        if (zeros == 0 || zeros == static_cast<int64_t>(ranks.size())) return;
        std::nth_element(ranks.begin(), ranks.begin() + zeros - 1, ranks.end());
        const double limit = ranks[static_cast<std::size_t>(zeros - 1)];
        const int64_t less =
            std::count_if(ranks.begin(), ranks.begin() + zeros, [&](double rank) { return rank < limit; });
        int64_t equals = zeros - less;
        for (int64_t j = begin; j < end; ++j) {
            for (int64_t row = 0; row < count_; ++row) {
                const double rank = cost(j, begin, row);
                const bool is_zero = rank < limit || (rank == limit && equals-- > 0);
                result_.mask[offset(row, j)] = is_zero ? 0 : 1;
            }
        }
    }

    double cost(int64_t column, int64_t begin, int64_t row) {
        const double value = adjusted(column - begin)[row];
        const double square = value * value * block_.factors->pivots[static_cast<std::size_t>(column)];
        return square >= 0 ? square : 0;  // NaN has no rank
    }

    const Bits* weight_;
    const MatrixShape& shape_;
    const Rounding& rounding_;
    const std::vector<double>& middles_;
    const FeedbackResult<Bits>& result_;
    const Block& block_;
    int64_t first_;
    int64_t count_;
    Workspace& work_;
    bool is_compared_ = false;
    int64_t row_tables_[kRows] = {};
    double rounded_[kRows] = {};
};

// Half way between neighbouring entries of each table.
std::vector<double> middles_of(const Rounding& rounding) {
    std::vector<double> middles;
    if (rounding.kind != RoundingKind::kPalette || rounding.length > 1) return middles;
    for (int64_t table = 0; table < rounding.tables; ++table) {
        const double* const entries = rounding.entries + table * rounding.entry_count;
        for (int64_t i = 0; i + 1 < rounding.entry_count; ++i) middles.push_back((entries[i] + entries[i + 1]) * 0.5);
    }
    return middles;
}

}  // namespace

template <typename Bits>
double feed_back(const Bits* weight, const MatrixShape& shape, const SecondMoments& moments, const Rounding& rounding,
                 const FeedbackOptions& options, int threads, const FeedbackResult<Bits>& result,
                 const KeptFactors* kept) {
    std::vector<Block> blocks = blocks_of(shape, moments);
    const std::vector<double> middles = middles_of(rounding);
    const int64_t chunks = (shape.rows + kRows - 1) / kRows;
    std::vector<double> errors(blocks.size() * static_cast<std::size_t>(shape.rows), 0.0);
    WorkspacePool<Workspace> workspaces;
    by_batches(blocks, [&](std::size_t first, std::size_t last) {
        for_blocks(blocks, first, last, threads, [&](Block& block, int block_threads) {
            if (kept != nullptr) {
                block.factors = kept->of(block.group, block.number).factors;
                block.relative = kept->of(block.group, block.number).relative;
                return;
            }
            if (options.continues) {
                block.factors = std::make_shared<const Factors>(Factors{
                    falling_order(moments, block.group, block.number, block.columns), ColumnTiles(0, true), {}});
            } else {
                block.factors = std::make_shared<const Factors>(
                    factorize(moments, block.group, block.number, block.columns, options.dampening, block_threads));
            }
            if (options.sweeps > 0) {
                block.relative = std::make_shared<const ColumnTiles>(relative_moments(
                    moments, block.group, block.number, block.factors->order, options.dampening, block_threads));
            }
        });
        parallel_for(static_cast<int64_t>(last - first) * chunks, threads, [&](int64_t task) {
            const std::size_t index = first + static_cast<std::size_t>(task / chunks);
            const int64_t row = task % chunks * kRows;
            const auto work = workspaces.borrow();
            Rows<Bits> rows(weight, shape, rounding, middles, result, blocks[index], row, *work);
            if (options.continues) {
                rows.load_errors();
            } else {
                rows.round(options.moves_mask, errors.data() + static_cast<int64_t>(index) * shape.rows + row);
            }
            for (int sweep = 0; sweep < options.sweeps; ++sweep) rows.sweep();
        });
        for (std::size_t i = first; i < last; ++i) {
            blocks[i].factors.reset();
            blocks[i].relative.reset();
        }
    });
    double sum = 0;
    for (const double error : errors) sum += error;
    return sum;
}

void column_pivots(const MatrixShape& shape, const SecondMoments& moments, double dampening, int threads,
                   double* pivots, const KeptFactors* kept) {
    std::vector<Block> blocks = blocks_of(shape, moments);
    for_blocks(blocks, 0, blocks.size(), threads, [&](Block& block, int block_threads) {
        const auto factors = kept != nullptr
                                 ? kept->of(block.group, block.number).factors
                                 : std::make_shared<const Factors>(factorize(moments, block.group, block.number,
                                                                             block.columns, dampening, block_threads));
        for (int64_t j = 0; j < block.columns; ++j) {
            const int64_t place = block.begin + factors->order[static_cast<std::size_t>(j)];
            pivots[block.group * shape.columns + place] = factors->pivots[static_cast<std::size_t>(j)];
        }
    });
}

template double feed_back<uint16_t>(const uint16_t*, const MatrixShape&, const SecondMoments&, const Rounding&,
                                    const FeedbackOptions&, int, const FeedbackResult<uint16_t>&, const KeptFactors*);
template double feed_back<BFloat16Bits>(const BFloat16Bits*, const MatrixShape&, const SecondMoments&, const Rounding&,
                                        const FeedbackOptions&, int, const FeedbackResult<BFloat16Bits>&,
                                        const KeptFactors*);
template double feed_back<uint32_t>(const uint32_t*, const MatrixShape&, const SecondMoments&, const Rounding&,
                                    const FeedbackOptions&, int, const FeedbackResult<uint32_t>&, const KeptFactors*);

}  // namespace corepress
