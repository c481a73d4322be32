// Products of matrices, subtracted one after another: every number of the result has its own order of roundings, the
// same at every level and however the loops are cut into blocks.

constexpr int kProductRows = 4;
#if defined(__AVX512F__)
constexpr int kProductWidth = 32;
constexpr int kRowWidth = 64;
#elif defined(__AVX2__)
constexpr int kProductWidth = 8;
constexpr int kRowWidth = 32;
#elif defined(__aarch64__)
constexpr int kProductWidth = 8;
constexpr int kRowWidth = 16;
#else
constexpr int kProductWidth = 4;
constexpr int kRowWidth = 16;
#endif

// Of a tile whose sums stay in registers.
template <int rows, int width>
inline __attribute__((always_inline)) void subtract_tile(const double* left, int64_t left_stride, const double* right,
                                                         int64_t right_stride, int64_t depth, double* out,
                                                         int64_t out_stride) {
    Wide<double, width> sums[rows];
    COREPRESS_UNROLL
    for (int row = 0; row < rows; ++row) load(out + row * out_stride, sums[row]);
    for (int64_t k = 0; k < depth; ++k) {
        Wide<double, width> factors;
        load(right + k * right_stride, factors);
        COREPRESS_UNROLL
        for (int row = 0; row < rows; ++row) sums[row] = sums[row] - factors * left[k * left_stride + row];
    }
    COREPRESS_UNROLL
    for (int row = 0; row < rows; ++row) store(sums[row], out + row * out_stride);
}

template <int rows, int width>
inline __attribute__((always_inline)) void subtract_rows(const double* left, int64_t left_stride, const double* right,
                                                         int64_t right_stride, int64_t depth, int64_t columns,
                                                         double* out, int64_t out_stride) {
    int64_t column = 0;
    for (; column + width <= columns; column += width) {
        subtract_tile<rows, width>(left, left_stride, right + column, right_stride, depth, out + column, out_stride);
    }
    if constexpr (width > 4) {
        for (; column + 4 <= columns; column += 4) {
            subtract_tile<rows, 4>(left, left_stride, right + column, right_stride, depth, out + column, out_stride);
        }
    }
    for (; column < columns; ++column) {
        for (int row = 0; row < rows; ++row) {
            double sum = out[row * out_stride + column];
            for (int64_t k = 0; k < depth; ++k) {
                sum -= right[k * right_stride + column] * left[k * left_stride + row];
            }
            out[row * out_stride + column] = sum;
        }
    }
}

void subtract_products(const double* left, int64_t left_stride, const double* right, int64_t right_stride,
                       int64_t depth, int64_t rows, int64_t columns, double* out, int64_t out_stride) {
    int64_t row = 0;
    for (; row + kProductRows <= rows; row += kProductRows) {
        subtract_rows<kProductRows, kProductWidth>(left + row, left_stride, right, right_stride, depth, columns,
                                                   out + row * out_stride, out_stride);
    }
    for (; row < rows; ++row) {
        subtract_rows<1, kRowWidth>(left + row, left_stride, right, right_stride, depth, columns,
                                    out + row * out_stride, out_stride);
    }
}

// counts[i] = how many of `bounds` columns, [bounds, kFeedbackRows], are less than values[i].
void count_below(const double* values, const double* columns, int64_t bounds, double* counts) {
    for (int64_t first = 0; first < kFeedbackRows; first += kLanes) {
        Doubles value, count = broadcast<double, kLanes>(0.0), bound;
        const Doubles one = broadcast<double, kLanes>(1.0), zero = broadcast<double, kLanes>(0.0);
        load(values + first, value);
        for (int64_t k = 0; k < bounds; ++k) {
            load(columns + k * kFeedbackRows + first, bound);
            count = count + choose(less(bound, value), one, zero);
        }
        store(count, counts + first);
    }
}

// The nearest of the entries, [entries, length], to each vector of planes [length, stride]; of equally near ones the
// first. `vectors` is a multiple of 8 or at most that, with room for 8.
void nearest_entries(const double* planes, int64_t stride, int64_t length, int64_t vectors, const double* entries,
                     int64_t count, double* codes) {
    for (int64_t first = 0; first < vectors; first += kLanes) {
        Doubles least = broadcast<double, kLanes>(__builtin_inf()), found = broadcast<double, kLanes>(0.0);
        for (int64_t entry = 0; entry < count; ++entry) {
            Doubles distance = broadcast<double, kLanes>(0.0), number;
            for (int64_t component = 0; component < length; ++component) {
                load(planes + component * stride + first, number);
                const Doubles difference = number - entries[entry * length + component];
                distance = distance + difference * difference;
            }
            const auto nearer = less(distance, least);
            least = choose(nearer, distance, least);
            found = choose(nearer, broadcast<double, kLanes>(static_cast<double>(entry)), found);
        }
        store(found, codes + first);
    }
}

// sums[codes[i]] += rows[i], in order; sums are [codes, sum_stride], rows `width` numbers long.
void add_rows(const double* rows, int64_t stride, const uint8_t* codes, int64_t count, int64_t width,
              int64_t sum_stride, double* sums) {
    for (int64_t i = 0; i < count; ++i) {
        const double* const row = rows + i * stride;
        double* const sum = sums + codes[i] * sum_stride;
        int64_t j = 0;
        for (; j + kLanes <= width; j += kLanes) {
            Doubles total, number;
            load(sum + j, total);
            load(row + j, number);
            store(total + number, sum + j);
        }
        for (; j < width; ++j) sum[j] += row[j];
    }
}
