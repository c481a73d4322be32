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

// shares[j - first][i] = softmax over the entries from first to last of -distance / temperature; nearest[i] = the
// least distance.
void soft_shares(const double* planes, const SoftEntries& entries, int64_t first, int64_t last, double* shares,
                 double* nearest) {
    for (int part = 0; part < kSoftLanes; ++part) {
        const int64_t place = part * kLanes;
        Doubles least = broadcast<double, kLanes>(__builtin_inf()), point;
        for (int64_t j = first; j < last; ++j) {
            Doubles distance = broadcast<double, kLanes>(j == entries.special ? -entries.threshold : 0.0);
            for (int64_t d = 0; d < entries.length; ++d) {
                load(planes + d * kSoftPoints + place, point);
                const Doubles difference = point - entries.values[j * entries.length + d];
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
}

// The sums of an entry, in lanes: of weights, and of weights times each component. Shares that are NaN stay so.
void soft_sums(const double* planes, const double* multiplicity, const double* shares, const SoftEntries& entries,
               int64_t first, int64_t last, double* lanes) {
    const Doubles smallest = broadcast<double, kLanes>(entries.smallest);
    const int64_t width = (1 + entries.length) * kLanes;
    for (int64_t j = first; j < last; ++j) {
        double* const sums = lanes + j * width;
        for (int part = 0; part < kSoftLanes; ++part) {
            const int64_t place = part * kLanes;
            Doubles share, times, point, sum;
            load(shares + (j - first) * kSoftPoints + place, share);
            load(multiplicity + place, times);
            const Doubles weight = greater(smallest, share) * times;
            load(sums, sum);
            store(sum + weight, sums);
            for (int64_t d = 0; d < entries.length; ++d) {
                load(planes + d * kSoftPoints + place, point);
                load(sums + (1 + d) * kLanes, sum);
                store(sum + weight * point, sums + (1 + d) * kLanes);
            }
        }
    }
}

// Adds to planes of results, for each point, the weighted sum of vectors [entries, length].
void soft_means(const double* shares, const SoftEntries& entries, const double* vectors, int64_t first, int64_t last,
                double* results) {
    const Doubles smallest = broadcast<double, kLanes>(entries.smallest);
    for (int part = 0; part < kSoftLanes; ++part) {
        const int64_t place = part * kLanes;
        for (int64_t d = 0; d < entries.length; ++d) {
            Doubles sum, share;
            load(results + d * kSoftPoints + place, sum);
            for (int64_t j = first; j < last; ++j) {
                load(shares + (j - first) * kSoftPoints + place, share);
                sum = sum + greater(smallest, share) * vectors[j * entries.length + d];
            }
            store(sum, results + d * kSoftPoints + place);
        }
    }
}

// Adds to planes of results the derivative through the shares, and to the lanes of pulls [entries, length] what it is
// for the entries, times the multiplicity. `scratch` has room for as many numbers as there are shares.
void soft_slopes(const double* planes, const double* multiplicity, const double* shares, const SoftEntries& entries,
                 const SoftPulls& pulls, int64_t first, int64_t last, double* scratch, double* results, double* lanes) {
    const Doubles smallest = broadcast<double, kLanes>(entries.smallest);
    const int64_t length = entries.length;
    const double twice = 2.0 * entries.per_temperature;
    for (int part = 0; part < kSoftLanes; ++part) {
        const int64_t place = part * kLanes;
        Doubles mean = broadcast<double, kLanes>(0.0), share, point, slope, times;
        for (int64_t j = first; j < last; ++j) {
            load(shares + (j - first) * kSoftPoints + place, share);
            Doubles change = broadcast<double, kLanes>(0.0);
            for (int64_t d = 0; d < length; ++d) {
                const double next = pulls.next[j * length + d];
                if (pulls.of_entries != nullptr) {
                    load(planes + d * kSoftPoints + place, point);
                    change = change + (point - next) * pulls.of_entries[j * length + d];
                }
                if (pulls.of_points != nullptr) {
                    load(pulls.of_points + d * kSoftPoints + place, slope);
                    change = change + slope * next;
                }
            }
            change = choose(less(share, smallest), broadcast<double, kLanes>(0.0), change);
            mean = mean + share * change;
            store(change, scratch + (j - first) * kSoftPoints + place);
        }
        load(multiplicity + place, times);
        for (int64_t j = first; j < last; ++j) {
            Doubles change;
            load(scratch + (j - first) * kSoftPoints + place, change);
            load(shares + (j - first) * kSoftPoints + place, share);
            const Doubles factor = share * (change - mean) * twice;
            for (int64_t d = 0; d < length; ++d) {
                Doubles sum;
                load(planes + d * kSoftPoints + place, point);
                const Doubles moved = factor * (point - entries.values[j * length + d]);
                load(results + d * kSoftPoints + place, sum);
                store(sum - moved, results + d * kSoftPoints + place);
                double* const pulled = lanes + (j * length + d) * kLanes;
                load(pulled, sum);
                store(sum + moved * times, pulled);
            }
        }
    }
}
