// Soft assignments of points to entries, and their derivatives; kSoftPoints points at a time, in planes. What the
// numbers stand for is in algo/soft_kmeans.

constexpr int kSoftLanes = static_cast<int>(kSoftPoints / kLanes);

// e^x for x <= 0, to 1e-14 of it; what is below e^-700 is 0. Not the C library's, which differs between systems.
inline __attribute__((always_inline)) Doubles exponential(const Doubles& exponents) {
    return map_registers<Doubles>(
        [](const auto& given) __attribute__((always_inline)) {
            using Numbers = decltype(Wide<double, sizeof given / sizeof(double)>::lanes);
            using Integers = decltype(Wide<int64_t, sizeof given / sizeof(double)>::lanes);
            constexpr double kToInteger = 0x1.8p52;  // added, it leaves the nearest integer in the lowest bits
            const Numbers lowest = Numbers{} - 700.0;
            const Numbers x = given < lowest ? lowest : given;
            const Numbers shifted = x * 0x1.71547652b82fep0 + kToInteger;
            const Numbers powers = shifted - kToInteger;
            const Numbers rest = (x - powers * 0x1.62e42fefa0000p-1) - powers * 0x1.cf79abc9e3b3ap-40;
            Numbers sum = Numbers{} + 1.0 / 39916800.0;
            sum = sum * rest + 1.0 / 3628800.0;
            sum = sum * rest + 1.0 / 362880.0;
            sum = sum * rest + 1.0 / 40320.0;
            sum = sum * rest + 1.0 / 5040.0;
            sum = sum * rest + 1.0 / 720.0;
            sum = sum * rest + 1.0 / 120.0;
            sum = sum * rest + 1.0 / 24.0;
            sum = sum * rest + 1.0 / 6.0;
            sum = sum * rest + 0.5;
            sum = sum * rest + 1.0;
            sum = sum * rest + 1.0;
            const Numbers power = reinterpret_cast<Numbers>(reinterpret_cast<Integers>(sum) +
                                                            (reinterpret_cast<Integers>(shifted) << 52));
            return given < lowest ? Numbers{} : power;
        },
        exponents);
}

// Calls body(length) with the usual lengths as constants, by which what belongs to a point stays in registers.
template <int64_t number>
struct Length {
    static constexpr int64_t kMost = number;
    constexpr operator int64_t() const { return number; }
};
struct AnyLength {
    static constexpr int64_t kMost = 0;  // too many for registers
    int64_t number;
    operator int64_t() const { return number; }
};
template <typename Body>
inline __attribute__((always_inline)) void with_length(int64_t length, const Body& body) {
    if (length == 1) return body(Length<1>{});
    if (length == 2) return body(Length<2>{});
    if (length == 4) return body(Length<4>{});
    body(AnyLength{length});
}

// Rows of kSoftPoints numbers at a place in them: in registers, if they are few.
template <int64_t most>
class SoftRows {
public:
    inline __attribute__((always_inline)) SoftRows(double* planes, int64_t place) : planes_(planes), place_(place) {
        COREPRESS_UNROLL
        for (int64_t d = 0; d < most; ++d) load(planes_ + d * kSoftPoints + place_, rows_[d]);
    }
    inline __attribute__((always_inline)) Doubles get(int64_t d) const { return rows_[d]; }
    inline __attribute__((always_inline)) void set(int64_t d, const Doubles& row) { rows_[d] = row; }
    inline __attribute__((always_inline)) void keep() const {
        COREPRESS_UNROLL
        for (int64_t d = 0; d < most; ++d) store(rows_[d], planes_ + d * kSoftPoints + place_);
    }

private:
    double* planes_;
    int64_t place_;
    Doubles rows_[most];
};

template <>
class SoftRows<0> {
public:
    SoftRows(double* planes, int64_t place) : planes_(planes), place_(place) {}
    inline __attribute__((always_inline)) Doubles get(int64_t d) const {
        Doubles row;
        load(planes_ + d * kSoftPoints + place_, row);
        return row;
    }
    inline __attribute__((always_inline)) void set(int64_t d, const Doubles& row) {
        store(row, planes_ + d * kSoftPoints + place_);
    }
    void keep() const {}

private:
    double* planes_;
    int64_t place_;
};

// shares[j - first][i] = softmax over the entries from first to last of -distance / temperature; nearest[i] = the
// least distance.
void soft_shares(const double* planes, const SoftEntries& entries, int64_t first, int64_t last, double* shares,
                 double* nearest) {
    with_length(
        entries.length, [&](auto length) __attribute__((always_inline)) {
            for (int part = 0; part < kSoftLanes; ++part) {
                const int64_t place = part * kLanes;
                const SoftRows<length.kMost> point(const_cast<double*>(planes), place);
                Doubles least = broadcast<double, kLanes>(__builtin_inf());
                for (int64_t j = first; j < last; ++j) {
                    Doubles distance = broadcast<double, kLanes>(j == entries.special ? -entries.threshold : 0.0);
                    for (int64_t d = 0; d < length; ++d) {
                        const Doubles difference = point.get(d) - entries.values[j * length + d];
                        distance = distance + difference * difference;
                    }
                    least = lesser(distance, least);
                    store(distance, shares + (j - first) * kSoftPoints + place);
                }
                Doubles sum = broadcast<double, kLanes>(0.0), share;
                for (int64_t j = 0; j < last - first; ++j) {
                    load(shares + j * kSoftPoints + place, share);
                    share = exponential((least - share) * entries.per_temperature);
                    sum = sum + share;
                    store(share, shares + j * kSoftPoints + place);
                }
                const Doubles scale = broadcast<double, kLanes>(1.0) / sum;
                for (int64_t j = 0; j < last - first; ++j) {
                    load(shares + j * kSoftPoints + place, share);
                    store(share * scale, shares + j * kSoftPoints + place);
                }
                store(least, nearest + place);
            }
        });
}

// The sums of an entry, in lanes: of weights, and of weights times each component. Shares that are NaN stay so.
void soft_sums(const double* planes, const double* multiplicity, const double* shares, const SoftEntries& entries,
               int64_t first, int64_t last, double* lanes) {
    const Doubles smallest = broadcast<double, kLanes>(entries.smallest);
    with_length(
        entries.length, [&](auto length) __attribute__((always_inline)) {
            for (int64_t j = first; j < last; ++j) {
                double* const sums = lanes + j * (1 + length) * kLanes;
                Doubles sum;
                load(sums, sum);
                Doubles weights[kSoftLanes];
                COREPRESS_UNROLL
                for (int part = 0; part < kSoftLanes; ++part) {
                    Doubles share, times;
                    load(shares + (j - first) * kSoftPoints + part * kLanes, share);
                    load(multiplicity + part * kLanes, times);
                    weights[part] = greater(smallest, share) * times;
                    sum = sum + weights[part];
                }
                store(sum, sums);
                for (int64_t d = 0; d < length; ++d) {
                    load(sums + (1 + d) * kLanes, sum);
                    COREPRESS_UNROLL
                    for (int part = 0; part < kSoftLanes; ++part) {
                        Doubles point;
                        load(planes + d * kSoftPoints + part * kLanes, point);
                        sum = sum + weights[part] * point;
                    }
                    store(sum, sums + (1 + d) * kLanes);
                }
            }
        });
}

// Adds to planes of results, for each point, the weighted sum of vectors [entries, length].
void soft_means(const double* shares, const SoftEntries& entries, const double* vectors, int64_t first, int64_t last,
                double* results) {
    const Doubles smallest = broadcast<double, kLanes>(entries.smallest);
    with_length(
        entries.length, [&](auto length) __attribute__((always_inline)) {
            for (int part = 0; part < kSoftLanes; ++part) {
                const int64_t place = part * kLanes;
                SoftRows<length.kMost> sums(results, place);
                for (int64_t j = first; j < last; ++j) {
                    Doubles share;
                    load(shares + (j - first) * kSoftPoints + place, share);
                    const Doubles weight = greater(smallest, share);
                    for (int64_t d = 0; d < length; ++d) sums.set(d, sums.get(d) + weight * vectors[j * length + d]);
                }
                sums.keep();
            }
        });
}

// soft_slopes for pulls that are known not to be null, or not to be there.
template <bool by_entries, bool by_points, typename Size>
inline __attribute__((always_inline)) void soft_slopes_of(const double* planes, const double* multiplicity,
                                                          const double* shares, const SoftEntries& entries,
                                                          const SoftPulls& pulls, int64_t first, int64_t last,
                                                          Size length, double* scratch, double* results,
                                                          double* lanes) {
    const Doubles smallest = broadcast<double, kLanes>(entries.smallest);
    const double twice = 2.0 * entries.per_temperature;
    for (int part = 0; part < kSoftLanes; ++part) {
        const int64_t place = part * kLanes;
        const SoftRows<Size::kMost> point(const_cast<double*>(planes), place);
        Doubles mean = broadcast<double, kLanes>(0.0), share, times;
        for (int64_t j = first; j < last; ++j) {
            load(shares + (j - first) * kSoftPoints + place, share);
            Doubles change = broadcast<double, kLanes>(0.0);
            for (int64_t d = 0; d < length; ++d) {
                const double next = pulls.next[j * length + d];
                if (by_entries) change = change + (point.get(d) - next) * pulls.of_entries[j * length + d];
                if (by_points) {
                    Doubles slope;
                    load(pulls.of_points + d * kSoftPoints + place, slope);
                    change = change + slope * next;
                }
            }
            change = choose(less(share, smallest), broadcast<double, kLanes>(0.0), change);
            mean = mean + share * change;
            store(change, scratch + (j - first) * kSoftPoints + place);
        }
        load(multiplicity + place, times);
        SoftRows<Size::kMost> sums(results, place);
        for (int64_t j = first; j < last; ++j) {
            Doubles change;
            load(scratch + (j - first) * kSoftPoints + place, change);
            load(shares + (j - first) * kSoftPoints + place, share);
            const Doubles factor = share * (change - mean) * twice;
            for (int64_t d = 0; d < length; ++d) {
                const Doubles moved = factor * (point.get(d) - entries.values[j * length + d]);
                sums.set(d, sums.get(d) - moved);
                double* const pulled = lanes + (j * length + d) * kLanes;
                Doubles sum;
                load(pulled, sum);
                store(sum + moved * times, pulled);
            }
        }
        sums.keep();
    }
}

// Adds to planes of results the derivative through the shares, and to the lanes of pulls [entries, length] what it is
// for the entries, times the multiplicity. `scratch` has room for as many numbers as there are shares.
void soft_slopes(const double* planes, const double* multiplicity, const double* shares, const SoftEntries& entries,
                 const SoftPulls& pulls, int64_t first, int64_t last, double* scratch, double* results, double* lanes) {
    with_length(
        entries.length, [&](auto length) __attribute__((always_inline)) {
            const auto find = [&](auto by_entries, auto by_points) __attribute__((always_inline)) {
                soft_slopes_of<by_entries.kMost != 0, by_points.kMost != 0>(
                    planes, multiplicity, shares, entries, pulls, first, last, length, scratch, results, lanes);
            };
            if (pulls.of_entries == nullptr) return find(Length<0>{}, Length<1>{});
            if (pulls.of_points == nullptr) return find(Length<1>{}, Length<0>{});
            find(Length<1>{}, Length<1>{});
        });
}
