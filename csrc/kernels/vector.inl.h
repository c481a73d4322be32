// Vectors of consecutive channels: read from a tensor as one plane of floats per component, given their nearest entry,
// and written back.
//
// Sixteen floats are one variable of the compilers' vector type, so that the best entry so far stays in registers while
// the entries pass by; in arrays it would travel to the cache and back at each entry. Every lane is a vector of its
// own, so lanes have no order to keep.

typedef float Floats __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(64), aligned(4), may_alias));
constexpr int64_t kWide = 16;

inline const Floats& floats_at(const float* values) { return *reinterpret_cast<const Floats*>(values); }
inline Floats& floats_at(float* values) { return *reinterpret_cast<Floats*>(values); }

template <typename Bits>
inline void widen_row(const Bits* values, int64_t count, float factor, float* row) {
    widen(values, count, row);
    if (factor == 1.0f) return;
    for (int64_t i = 0; i < count; ++i) row[i] *= factor;
}

// Whole blocks of short runs: widened together, then dealt out.
template <typename Bits>
void load_short_runs(const Bits* values, int64_t blocks, int64_t inner, int64_t length, float factor, float* planes,
                     int64_t stride) {
    float tile[kTile];
    const int64_t size = length * inner, most = kTile / size;
    for (int64_t first = 0; first < blocks; first += most) {
        const int64_t count = blocks - first < most ? blocks - first : most;
        widen_row(values + first * size, count * size, factor, tile);
        for (int64_t component = 0; component < length; ++component) {
            float* const to = planes + component * stride + first * inner;
            const float* const from = tile + component * inner;
            if (inner == 1 && length == 2) {
                for (int64_t a = 0; a < count; ++a) to[a] = from[2 * a];
            } else if (inner == 1 && length == 4) {
                for (int64_t a = 0; a < count; ++a) to[a] = from[4 * a];
            } else {
                for (int64_t a = 0; a < count; ++a) {
                    for (int64_t r = 0; r < inner; ++r) to[a * inner + r] = from[a * size + r];
                }
            }
        }
    }
}

template <typename Bits>
void load_vectors(const Bits* values, int64_t inner, int64_t length, int64_t begin, int64_t end, float factor,
                  float* planes, int64_t stride) {
    for (int64_t at = begin; at < end;) {
        const int64_t block = at / inner, within = at - block * inner;
        const Bits* const from = values + block * length * inner;
        int64_t count = inner - within < end - at ? inner - within : end - at;
        if (within == 0 && count == inner && inner < 64 && inner * length <= kTile) {
            const int64_t blocks = (end - at) / inner;
            load_short_runs(from, blocks, inner, length, factor, planes + (at - begin), stride);
            count = blocks * inner;
        } else {
            for (int64_t component = 0; component < length; ++component) {
                widen_row(from + component * inner + within, count, factor, planes + component * stride + (at - begin));
            }
        }
        at += count;
    }
}

// kLength: the vectors' length where it is known beforehand, else 0.
template <int kLength, bool kWeighted>
inline void nearest_entries(const float* planes, const float* weights, int64_t stride, int64_t length, int64_t count,
                            const float* entries, int64_t entry_count, uint16_t* codes, float* distances) {
    constexpr int kSets = kLength > 4 ? 1 : 2;  // as many as registers hold
    if (kLength > 0) length = kLength;
    for (int64_t i = 0; i < count; i += kSets * kWide) {
        Floats least[kSets], known[kLength > 0 ? kLength : 1][kSets];
        Ints code[kSets];
        for (int set = 0; set < kSets; ++set) {
            least[set] = Floats{} + __builtin_inff();
            code[set] = Ints{};
            for (int component = 0; component < kLength; ++component) {
                known[component][set] = floats_at(planes + component * stride + i + set * kWide);
            }
        }
        const float* entry = entries;
        for (int64_t j = 0; j < entry_count; ++j, entry += length) {
            const Ints number = Ints{} + static_cast<int32_t>(j);
            for (int set = 0; set < kSets; ++set) {
                const int64_t offset = i + set * kWide;
                Floats distance = Floats{};
                for (int64_t component = 0; component < length; ++component) {
                    const Floats value = kLength > 0 ? known[kLength > 0 ? component : 0][set]
                                                     : floats_at(planes + component * stride + offset);
                    const Floats difference = value - entry[component];
                    Floats square = difference * difference;
                    if (kWeighted) square *= floats_at(weights + component * stride + offset);
                    distance = component == 0 ? square : distance + square;
                }
                const auto nearer = distance < least[set];
                least[set] = nearer ? distance : least[set];
                code[set] = nearer ? number : code[set];
            }
        }
        for (int set = 0; set < kSets; ++set) {
            const int64_t offset = i + set * kWide;
            floats_at(distances + offset) = least[set];
            for (int64_t lane = 0; lane < kWide; ++lane) codes[offset + lane] = static_cast<uint16_t>(code[set][lane]);
        }
    }
}

template <bool kWeighted>
inline void nearest_entries_of(const float* planes, const float* weights, int64_t stride, int64_t length, int64_t count,
                               const float* entries, int64_t entry_count, uint16_t* codes, float* distances) {
    const auto run = [&](auto kernel) {
        kernel(planes, weights, stride, length, count, entries, entry_count, codes, distances);
    };
    switch (length) {
        case 1: return run(nearest_entries<1, kWeighted>);
        case 2: return run(nearest_entries<2, kWeighted>);
        case 3: return run(nearest_entries<3, kWeighted>);
        case 4: return run(nearest_entries<4, kWeighted>);
        case 8: return run(nearest_entries<8, kWeighted>);
        default: return run(nearest_entries<0, kWeighted>);
    }
}

void assign_vectors(const float* planes, const float* weights, int64_t stride, int64_t length, int64_t count,
                    const float* entries, int64_t entry_count, uint16_t* codes, float* distances) {
    if (weights == nullptr) {
        nearest_entries_of<false>(planes, weights, stride, length, count, entries, entry_count, codes, distances);
    } else {
        nearest_entries_of<true>(planes, weights, stride, length, count, entries, entry_count, codes, distances);
    }
}

void approach(const float* planes, const float* weights, int64_t stride, int64_t length, int64_t count,
              const float* shares, const float* centre, const float* distances, float* nearer, double* sums) {
    for (int64_t begin = 0; begin < count; begin += kTile) {
        const int64_t end = count - begin < kTile ? count : begin + kTile;
        Floats lanes = Floats{};
        for (int64_t i = begin; i < end; i += kWide) {
            Floats distance = Floats{};
            for (int64_t component = 0; component < length; ++component) {
                const Floats difference = floats_at(planes + component * stride + i) - centre[component];
                Floats square = difference * difference;
                if (weights != nullptr) square *= floats_at(weights + component * stride + i);
                distance = component == 0 ? square : distance + square;
            }
            if (shares != nullptr) distance *= floats_at(shares + i);
            const Floats before = floats_at(distances + i);
            distance = distance < before ? distance : before;
            floats_at(nearer + i) = distance;
            lanes += distance;
        }
        double sum = 0;
        for (int64_t lane = 0; lane < kWide; ++lane) sum += static_cast<double>(lanes[lane]);
        sums[begin / kTile] = sum;
    }
}

template <typename Bits>
void look_up_vectors(const uint8_t* codes, int64_t blocks, int64_t inner, int64_t count, int64_t length,
                     const Bits* lut, Bits* values) {
    for (int64_t block = 0; block < blocks; ++block) {
        const uint8_t* const from = codes + block * count;
        Bits* const to = values + block * length * inner;
        if (inner == 1) {
            for (int64_t component = 0; component < length; ++component) {
                to[component] = lut[from[0] * length + component];
            }
            continue;
        }
        for (int64_t component = 0; component < length; ++component) {
            for (int64_t i = 0; i < count; ++i) to[component * inner + i] = lut[from[i] * length + component];
        }
    }
}
