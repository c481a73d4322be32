#include <pybind11/stl.h>

#include <algorithm>

#include "algo/calibrate/feed_back.h"
#include "bindings/arrays.h"
#include "bindings/native_call.h"

namespace corepress {
namespace {

using Numbers = py::array_t<int32_t, py::array::c_style>;
using Doubles = py::array_t<double, py::array::c_style>;

MatrixShape shape_from(const py::array& weight) {
    require(weight.ndim() == 3, "weight must be (groups, rows, columns)");
    require(weight.size() > 0, "weight must have elements");
    return {weight.shape(0), weight.shape(1), weight.shape(2)};
}

SecondMoments moments_from(const py::array& hessian, const MatrixShape& shape) {
    require_contiguous(hessian, "hessian");
    const py::dtype dtype = hessian.dtype();
    require(dtype.kind() == 'f' && (dtype.itemsize() == 4 || dtype.itemsize() == 8) && dtype.byteorder() != '>',
            "hessian must be float32 or float64");
    require(hessian.ndim() == 4 && hessian.shape(2) == hessian.shape(3) && hessian.shape(2) >= 1,
            "hessian must be (groups, blocks, c, c)");
    require(hessian.shape(0) == 1 || hessian.shape(0) == shape.groups, "hessian must have 1 or ", shape.groups,
            " groups");
    require(hessian.shape(1) * hessian.shape(2) >= shape.columns, "hessian must have ", shape.columns, " columns");
    return {hessian.data(), dtype.itemsize() == 8, hessian.shape(0), hessian.shape(1), hessian.shape(2)};
}

// Null for none; those that are given must be of the same moments.
const KeptFactors* kept_from(const KeptFactors* kept, int64_t columns, const SecondMoments& moments, double dampening) {
    require(kept == nullptr || kept->fit(columns, moments, dampening), "factors must be of this hessian and dampening");
    return kept;
}

// The factors of second moments; None if they are more than some numbers.
std::unique_ptr<KeptFactors> kept_factors(int64_t columns, const py::array& hessian, double dampening, int64_t most,
                                          std::optional<int> num_threads) {
    require(columns >= 1, "columns must be positive");
    require(hessian.ndim() == 4, "hessian must be (groups, blocks, c, c)");
    const SecondMoments moments = moments_from(hessian, {hessian.shape(0), 1, columns});
    if (KeptFactors::numbers(columns, moments) > most) return nullptr;
    const int threads = threads_from(num_threads);
    const NativeCall call;
    return std::make_unique<KeptFactors>(columns, moments, dampening, threads);
}

// Numbers of tables that are within their bounds, whatever is added.
void set_tables(const MatrixShape& shape, const Numbers& rows, const std::optional<Numbers>& columns,
                Rounding& rounding) {
    require_size(rows, shape.groups * shape.rows, "row_tables");
    if (columns) require_size(*columns, shape.groups * shape.columns, "column_tables");
    const auto bounds = [](const Numbers& numbers) {
        const auto [least, most] = std::minmax_element(numbers.data(), numbers.data() + numbers.size());
        require(*least >= 0, "tables must not be negative");
        return int64_t{*most};
    };
    const int64_t most = bounds(rows) + (columns ? bounds(*columns) : 0);
    require(most < rounding.tables, "there are ", rounding.tables, " tables, and one is number ", most);
    rounding.row_tables = rows.data();
    rounding.column_tables = columns ? columns->data() : nullptr;
}

void set_palette(const Doubles& tables, Rounding& rounding) {
    require(tables.ndim() == 3, "tables must be (tables, entries, cluster_dim)");
    rounding.kind = RoundingKind::kPalette;
    rounding.tables = tables.shape(0);
    rounding.entry_count = tables.shape(1);
    rounding.length = tables.shape(2);
    rounding.entries = tables.data();
    const int64_t count = rounding.entry_count;
    require(count >= 2 && count <= 256 && (count & (count - 1)) == 0, "entries must be a power of two up to 256");
    require(rounding.length >= 1 && kFeedbackRows % rounding.length == 0, "cluster_dim must divide ", kFeedbackRows);
}

// codes and error of rounding to palettes, or to integers with (scales, zero_points, lowest, highest).
double feed_back_codes(const py::array& weight, const py::array& hessian, double dampening, const py::object& grid,
                       const Numbers& row_tables, const std::optional<Numbers>& column_tables,
                       std::optional<Bytes>& mask, Bytes& codes, int sweeps, bool continues,
                       std::optional<int> num_threads, const KeptFactors* factors) {
    require_float(weight, "weight");
    const MatrixShape shape = shape_from(weight);
    const SecondMoments moments = moments_from(hessian, shape);
    Rounding rounding;
    Doubles first, second;
    if (py::isinstance<py::tuple>(grid)) {
        const auto parts = grid.cast<py::tuple>();
        require(parts.size() == 4, "a grid has scales, zero_points, lowest and highest");
        first = parts[0].cast<Doubles>();
        second = parts[1].cast<Doubles>();
        rounding.kind = RoundingKind::kAffine;
        rounding.tables = first.size();
        require_size(second, first.size(), "zero_points");
        rounding.scales = first.data();
        rounding.zero_points = second.data();
        rounding.lowest = parts[2].cast<double>();
        rounding.highest = parts[3].cast<double>();
        require(rounding.lowest >= -128 && rounding.highest <= 255 && rounding.lowest < rounding.highest,
                "codes must fit a byte");
    } else {
        first = grid.cast<Doubles>();
        set_palette(first, rounding);
    }
    set_tables(shape, row_tables, column_tables, rounding);
    require(shape.rows % rounding.length == 0, "vectors must divide the rows");
    require_size(codes, weight.size() / rounding.length, "codes");
    if (mask) require_size(*mask, weight.size(), "mask");
    require(!mask || rounding.length == 1, "vectors have no mask");
    const int threads = threads_from(num_threads);
    uint8_t* const out = codes.mutable_data();
    uint8_t* const kept = mask ? mask->mutable_data() : nullptr;
    const FeedbackOptions options{dampening, sweeps, continues, false};
    const KeptFactors* const known = kept_from(factors, shape.columns, moments, dampening);
    return with_bits(weight, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        const NativeCall call;
        return feed_back<Bits>(values, shape, moments, rounding, options, threads, {out, nullptr, kept}, known);
    });
}

double feed_back_values(const py::array& weight, const py::array& hessian, double dampening, Bytes& mask,
                        bool moves_mask, py::array& out, int sweeps, std::optional<int> num_threads,
                        const KeptFactors* factors) {
    require_float(weight, "weight");
    require_float(out, "out");
    require_same_dtype(weight, out, "weight and out");
    const MatrixShape shape = shape_from(weight);
    const SecondMoments moments = moments_from(hessian, shape);
    require_size(mask, weight.size(), "mask");
    require_size(out, weight.size(), "out");
    const int threads = threads_from(num_threads);
    uint8_t* const kept = mask.mutable_data();
    const FeedbackOptions options{dampening, sweeps, false, moves_mask};
    const KeptFactors* const known = kept_from(factors, shape.columns, moments, dampening);
    return with_bits(weight, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        Bits* const results = writable_data_of<Bits>(out);
        const NativeCall call;
        return feed_back<Bits>(values, shape, moments, Rounding{}, options, threads, {nullptr, results, kept}, known);
    });
}

Doubles pivots_of(const std::array<int64_t, 3>& shape, const py::array& hessian, double dampening,
                  std::optional<int> num_threads, const KeptFactors* factors) {
    require(shape[0] >= 1 && shape[1] >= 1 && shape[2] >= 1, "shape must have no zero");
    const MatrixShape matrices{shape[0], shape[1], shape[2]};
    const SecondMoments moments = moments_from(hessian, matrices);
    const KeptFactors* const known = kept_from(factors, shape[2], moments, dampening);
    const int threads = threads_from(num_threads);
    Doubles pivots({static_cast<py::ssize_t>(shape[0]), static_cast<py::ssize_t>(shape[2])});
    double* const out = pivots.mutable_data();
    {
        const NativeCall call;
        column_pivots(matrices, moments, dampening, threads, out, known);
    }
    return pivots;
}

py::tuple normal_equations(const py::array& weight, const py::array& hessian, double dampening, int64_t tables,
                           int64_t entries, const Numbers& row_tables, const Bytes& codes,
                           std::optional<int> num_threads) {
    require_float(weight, "weight");
    const MatrixShape shape = shape_from(weight);
    const SecondMoments moments = moments_from(hessian, shape);
    require(tables >= 1 && entries >= 2 && entries <= 16 && (entries & (entries - 1)) == 0,
            "entries must be a power of two up to 16");
    Rounding rounding;
    rounding.tables = tables;
    rounding.entry_count = entries;
    set_tables(shape, row_tables, std::nullopt, rounding);
    require_size(codes, weight.size(), "codes");
    const int threads = threads_from(num_threads);
    Doubles products(
        {static_cast<py::ssize_t>(tables), static_cast<py::ssize_t>(entries), static_cast<py::ssize_t>(entries)}),
        targets({static_cast<py::ssize_t>(tables), static_cast<py::ssize_t>(entries)});
    double* const left = products.mutable_data();
    double* const right = targets.mutable_data();
    std::fill_n(left, products.size(), 0.0);
    std::fill_n(right, targets.size(), 0.0);
    const uint8_t* const in = codes.data();
    with_bits(weight, [&](auto bits) {
        using Bits = decltype(bits);
        const Bits* const values = data_of<Bits>(weight);
        const NativeCall call;
        sum_normal_equations<Bits>(values, shape, moments, rounding, in, dampening, threads, left, right);
    });
    return py::make_tuple(products, targets);
}

}  // namespace

void bind_calibrate(py::module_& module) {
    py::class_<KeptFactors>(module, "KeptFactors");
    module.def("kept_factors", &kept_factors, py::arg("columns"), py::arg("hessian"), py::arg("dampening"),
               py::arg("most"), py::arg("num_threads") = py::none());
    module.def("feed_back_codes", &feed_back_codes, py::arg("weight"), py::arg("hessian"), py::arg("dampening"),
               py::arg("grid"), py::arg("row_tables").noconvert(), py::arg("column_tables").noconvert(),
               py::arg("mask").noconvert(), py::arg("codes").noconvert(), py::arg("sweeps"),
               py::arg("continues") = false, py::arg("num_threads") = py::none(), py::arg("factors") = py::none());
    module.def("feed_back_values", &feed_back_values, py::arg("weight"), py::arg("hessian"), py::arg("dampening"),
               py::arg("mask").noconvert(), py::arg("moves_mask"), py::arg("out"), py::arg("sweeps"),
               py::arg("num_threads") = py::none(), py::arg("factors") = py::none());
    module.def("column_pivots", &pivots_of, py::arg("shape"), py::arg("hessian"), py::arg("dampening"),
               py::arg("num_threads") = py::none(), py::arg("factors") = py::none());
    module.def("normal_equations", &normal_equations, py::arg("weight"), py::arg("hessian"), py::arg("dampening"),
               py::arg("tables"), py::arg("entries"), py::arg("row_tables").noconvert(), py::arg("codes").noconvert(),
               py::arg("num_threads") = py::none());
}

}  // namespace corepress
