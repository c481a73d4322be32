#include <algorithm>
#include <vector>

#include "algo/calibrate/feed_back.h"
#include "core/half.h"
#include "core/parallel.h"
#include "core/stop.h"
#include "core/workspace.h"
#include "dispatch.h"

namespace corepress {
namespace {

constexpr int64_t kStrip = 64;  // columns whose sums by code fit the first-level cache

struct Workspace {
    std::vector<double> values;    // [columns, kFeedbackRows]
    std::vector<double> products;  // [kFeedbackRows, kStrip], of moments and values, negative
    std::vector<double> sums;      // [entries, kStrip], of the moments of columns with one code
    std::vector<uint8_t> codes;
};

}  // namespace

template <typename Bits>
void sum_normal_equations(const Bits* weight, const MatrixShape& shape, const SecondMoments& moments,
                          const Rounding& rounding, const uint8_t* codes, double dampening, int threads,
                          double* products, double* targets) {
    const int64_t k = rounding.entry_count, size = k * k + k;
    const auto& kernel = kernels();
    const int64_t chunks = (shape.rows + kFeedbackRows - 1) / kFeedbackRows;
    std::vector<double> of_rows(static_cast<std::size_t>(shape.groups * shape.rows * size), 0.0);
    std::vector<double> dense;
    WorkspacePool<Workspace> workspaces;
    for (int64_t group = 0; group < shape.groups; ++group) {
        for (int64_t begin = 0, block = 0; begin < shape.columns; begin += moments.size, ++block) {
            const int64_t columns = std::min(moments.size, shape.columns - begin);
            const int block_threads = columns * columns * shape.rows < (int64_t{1} << 20) ? 1 : threads;
            double sum = 0;
            for (int64_t i = 0; i < columns; ++i) sum += moments.at(group, block, i, i);
            const double damp = dampening * (sum / static_cast<double>(columns));
            dense.resize(static_cast<std::size_t>(columns * columns));
            parallel_pieces(columns, kFeedbackRows, block_threads, [&](int64_t first, int64_t last) {
                for (int64_t i = first; i < last; ++i) {
                    double* const row = dense.data() + i * columns;
                    for (int64_t j = 0; j < columns; ++j) row[j] = moments.at(group, block, i, j);
                    row[i] += damp;
                }
            });
            parallel_for(chunks, block_threads, [&](int64_t chunk) {
                const auto work = workspaces.borrow();
                const int64_t first = chunk * kFeedbackRows, count = std::min(kFeedbackRows, shape.rows - first);
                const int64_t offset = (group * shape.rows + first) * shape.columns + begin;
                work->values.assign(static_cast<std::size_t>(columns * kFeedbackRows), 0.0);
                work->codes.resize(static_cast<std::size_t>(count * columns));
                for (int64_t row = 0; row < count; ++row) {
                    for (int64_t j = 0; j < columns; ++j) {
                        const int64_t place = offset + row * shape.columns + j;
                        work->values[static_cast<std::size_t>(j * kFeedbackRows + row)] =
                            static_cast<double>(Format<Bits>::to_float(weight[place]));
                        work->codes[static_cast<std::size_t>(row * columns + j)] =
                            static_cast<uint8_t>(codes[place] & (k - 1));
                    }
                }
                for (int64_t strip = 0; strip < columns; strip += kStrip) {
                    check_stop();
                    const int64_t width = std::min(kStrip, columns - strip);
                    work->products.assign(static_cast<std::size_t>(kFeedbackRows * kStrip), 0.0);
                    kernel.subtract_products(work->values.data(), kFeedbackRows, dense.data() + strip, columns, columns,
                                             kFeedbackRows, width, work->products.data(), kStrip);
                    for (int64_t row = 0; row < count; ++row) {
                        const uint8_t* const own = work->codes.data() + row * columns;
                        work->sums.assign(static_cast<std::size_t>(k * kStrip), 0.0);
                        kernel.add_rows(dense.data() + strip, columns, own, columns, width, kStrip, work->sums.data());
                        double* const pairs = of_rows.data() + (group * shape.rows + first + row) * size;
                        for (int64_t j = 0; j < width; ++j) {
                            const int64_t code = own[strip + j];
                            for (int64_t i = 0; i < k; ++i) {
                                pairs[i * k + code] += work->sums[static_cast<std::size_t>(i * kStrip + j)];
                            }
                            pairs[k * k + code] -= work->products[static_cast<std::size_t>(row * kStrip + j)];
                        }
                    }
                }
            });
        }
    }
    for (int64_t row = 0; row < shape.groups * shape.rows; ++row) {
        const int64_t table = rounding.row_tables[row];
        const double* const own = of_rows.data() + row * size;
        for (int64_t i = 0; i < k * k; ++i) products[table * k * k + i] += own[i];
        for (int64_t i = 0; i < k; ++i) targets[table * k + i] += own[k * k + i];
    }
}

template void sum_normal_equations<uint16_t>(const uint16_t*, const MatrixShape&, const SecondMoments&, const Rounding&,
                                             const uint8_t*, double, int, double*, double*);
template void sum_normal_equations<BFloat16Bits>(const BFloat16Bits*, const MatrixShape&, const SecondMoments&,
                                                 const Rounding&, const uint8_t*, double, int, double*, double*);
template void sum_normal_equations<uint32_t>(const uint32_t*, const MatrixShape&, const SecondMoments&, const Rounding&,
                                             const uint8_t*, double, int, double*, double*);

}  // namespace corepress
