// Vectors of consecutive channels: read from a tensor as one plane of floats per component, given their nearest entry,
// and written back.
//
// The best entry so far stays in registers while the entries pass by; in arrays it would travel to the cache and back
// at each entry. Every lane is a vector of its own, so that lanes have no order to keep, but in sums.

constexpr int64_t kWide = 16;
using Floats = Wide<float, kWide>;
using Ints = Wide<int32_t, kWide>;
constexpr int kInRegister = kRegisterBytes / sizeof(float);

template <int count>
inline __attribute__((always_inline)) Wide<float, count> floats_at(const float* values) {
    Wide<float, count> loaded;
    load(values, loaded);
    return loaded;
}

// The nearest of the entries that have passed by some vectors.
template <int kCount>
struct NearestEntries {
    using Values = Wide<float, kCount>;
    using Numbers = Wide<int32_t, kCount>;
    Values least = broadcast<float, kCount>(__builtin_inff());
    Numbers code = {};

    inline __attribute__((always_inline)) void take(const Values& distance, int32_t number) {
        const Numbers nearer = less(distance, least);
        least = choose(nearer, distance, least);
        code = choose(nearer, broadcast<int32_t, kCount>(number), code);
    }

    inline __attribute__((always_inline)) void write(uint16_t* codes, float* distances) const {
        store(least, distances);
        int32_t numbers[kCount];
        store(code, numbers);
        for (int lane = 0; lane < kCount; ++lane) codes[lane] = static_cast<uint16_t>(numbers[lane]);
    }
};

// Of vectors whose components stay in registers too.
template <int kLength, int kCount>
struct Nearest : NearestEntries<kCount> {
    using Values = Wide<float, kCount>;
    Values known[kLength];

    inline __attribute__((always_inline)) Nearest(const float* planes, int64_t stride) {
        COREPRESS_UNROLL
        for (int c = 0; c < kLength; ++c) load(planes + c * stride, known[c]);
    }

    inline __attribute__((always_inline)) void pass(const float* entry, int32_t number) {
        Values distance = {};
        COREPRESS_UNROLL
        for (int c = 0; c < kLength; ++c) {
            const Values difference = known[c] - entry[c];
            const Values square = difference * difference;
            distance = c == 0 ? square : distance + square;
        }
        this->take(distance, number);
    }
};

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

template <int kLength>
inline void nearest_entries(const float* planes, int64_t stride, int64_t count, const float* entries,
                            int64_t entry_count, uint16_t* codes, float* distances) {
    constexpr int kCount = (kLength > 4 ? 1 : 2) * kInRegister;  // as many as registers hold
    for (int64_t i = 0; i < count; i += kCount) {
        Nearest<kLength, kCount> nearest(planes + i, stride);
        for (int64_t j = 0; j < entry_count; ++j) nearest.pass(entries + j * kLength, static_cast<int32_t>(j));
        nearest.write(codes + i, distances + i);
    }
}

// Of any length, with or without weights.
template <bool kWeighted>
inline void nearest_entries_of_any(const float* planes, const float* weights, int64_t stride, int64_t length,
                                   int64_t count, const float* entries, int64_t entry_count, uint16_t* codes,
                                   float* distances) {
    constexpr int kCount = 2 * kInRegister;
    using Values = Wide<float, kCount>;
    for (int64_t i = 0; i < count; i += kCount) {
        NearestEntries<kCount> nearest;
        for (int64_t j = 0; j < entry_count; ++j) {
            Values distance = {};
            for (int64_t component = 0; component < length; ++component) {
                const int64_t at = component * stride + i;
                const Values difference = floats_at<kCount>(planes + at) - entries[j * length + component];
                Values square = difference * difference;
                if (kWeighted) square = square * floats_at<kCount>(weights + at);
                distance = component == 0 ? square : distance + square;
            }
            nearest.take(distance, static_cast<int32_t>(j));
        }
        nearest.write(codes + i, distances + i);
    }
}

void assign_vectors(const float* planes, const float* weights, int64_t stride, int64_t length, int64_t count,
                    const float* entries, int64_t entry_count, uint16_t* codes, float* distances) {
    if (weights != nullptr) {
        return nearest_entries_of_any<true>(planes, weights, stride, length, count, entries, entry_count, codes,
                                            distances);
    }
    const auto run = [&](auto kernel) { kernel(planes, stride, count, entries, entry_count, codes, distances); };
    switch (length) {
        case 1: return run(nearest_entries<1>);
        case 2: return run(nearest_entries<2>);
        case 3: return run(nearest_entries<3>);
        case 4: return run(nearest_entries<4>);
        case 8: return run(nearest_entries<8>);
        default:
            return nearest_entries_of_any<false>(planes, weights, stride, length, count, entries, entry_count, codes,
                                                 distances);
    }
}

template <bool kLeast>
inline float extreme_of(const float* values, int64_t count) {
    float extreme = values[0];
    for (int64_t i = 1; i < count; ++i) {
        extreme = (kLeast ? values[i] < extreme : values[i] > extreme) ? values[i] : extreme;
    }
    return extreme;
}

template <int kLength>
struct Box {
    float low[kLength], high[kLength];

    // The one around several, whose bounds are in planes.
    Box(const float* lowest, const float* highest, int64_t stride, int64_t count) {
        COREPRESS_UNROLL
        for (int c = 0; c < kLength; ++c) {
            low[c] = extreme_of<true>(lowest + c * stride, count);
            high[c] = extreme_of<false>(highest + c * stride, count);
        }
    }
};

// Writes, ascending, the entries that may be nearest to a vector of a box, and returns their number. Let c be the entry
// whose farthest corner is nearest. For entry e, d(x, e)^2 - d(x, c)^2 is linear in x, so its minimum over the box is
// found per component; e is dropped if that is positive beyond the rounding margin.
template <int kLength>
inline int64_t list_near_entries(const Box<kLength>& box, const float* entry_planes, int64_t entry_stride,
                                 int64_t entry_count, float* bounds, int32_t* near) {
    constexpr float kMargin = 0x1p-17f, kUnderflow = 0x1p-120f;
    Floats low[kLength], high[kLength];
    COREPRESS_UNROLL
    for (int c = 0; c < kLength; ++c) {
        low[c] = broadcast<float, kWide>(box.low[c]);
        high[c] = broadcast<float, kWide>(box.high[c]);
    }
    const int64_t end = (entry_count + kWide - 1) / kWide * kWide;
    Floats least = broadcast<float, kWide>(__builtin_inff());
    Ints central = {};
    for (int64_t j = 0; j < end; j += kWide) {
        Floats farthest = {};
        COREPRESS_UNROLL
        for (int c = 0; c < kLength; ++c) {
            const Floats entry = floats_at<kWide>(entry_planes + c * entry_stride + j);
            const Floats reach = greater(high[c] - entry, entry - low[c]);
            farthest = c == 0 ? reach * reach : farthest + reach * reach;
        }
        store(farthest, bounds + j);
        const Ints nearer = less(farthest, least);
        least = choose(nearer, farthest, least);
        central = choose(nearer, broadcast<int32_t, kWide>(static_cast<int32_t>(j)), central);
    }
    float reaches[kWide];
    int32_t centrals[kWide];
    store(least, reaches);
    store(central, centrals);
    float reach_of_central = reaches[0];
    int32_t chosen = centrals[0];
    for (int lane = 1; lane < kWide; ++lane) {
        const bool nearer = reaches[lane] < reach_of_central;
        reach_of_central = nearer ? reaches[lane] : reach_of_central;
        chosen = nearer ? centrals[lane] + lane : chosen;
    }
    Floats from_low[kLength], from_high[kLength];
    COREPRESS_UNROLL
    for (int c = 0; c < kLength; ++c) {
        const Floats entry = broadcast<float, kWide>(entry_planes[c * entry_stride + chosen]);
        from_low[c] = (low[c] - entry) * (low[c] - entry);
        from_high[c] = (high[c] - entry) * (high[c] - entry);
    }
    int64_t count = 0;
    for (int64_t j = 0; j < end; j += kWide) {
        Floats nearer_by = (floats_at<kWide>(bounds + j) + reach_of_central) * kMargin + kUnderflow;
        COREPRESS_UNROLL
        for (int c = 0; c < kLength; ++c) {
            const Floats entry = floats_at<kWide>(entry_planes + c * entry_stride + j);
            const Floats below = low[c] - entry, above = high[c] - entry;
            nearer_by = nearer_by + greater(from_low[c] - below * below, from_high[c] - above * above);
        }
        store(nearer_by, bounds + j);
        count += list_not_negative(bounds + j, j, near + count);
    }
    while (near[count - 1] >= entry_count) --count;
    return count;
}

// First the entries for many boxes together, then those of them for each box, then the nearest of those.
template <int kLength>
inline void nearest_of_near(const float* planes, int64_t stride, int64_t count, const BoxPlanes& boxes,
                            const EntryPlanes& entries, float* floats, int32_t* numbers, uint16_t* codes,
                            float* distances) {
    constexpr int64_t kTogether = 16, kFew = 6;
    constexpr int kCount = 2 * kInRegister;
    const int64_t room = entries.stride + kWide, box_count = (count + kBox - 1) / kBox;
    float* const bounds = floats;
    float* const near_planes = floats + room;
    int32_t* const near = numbers;
    int32_t* const nearer = numbers + room;
    for (int64_t first = 0; first < box_count; first += kTogether) {
        const int64_t together = box_count - first < kTogether ? box_count - first : kTogether;
        const Box<kLength> around(boxes.lowest + first, boxes.highest + first, boxes.stride, together);
        const int64_t near_count =
            list_near_entries(around, entries.planes, entries.stride, entries.count, bounds, near);
        COREPRESS_UNROLL
        for (int c = 0; c < kLength; ++c) {
            float* const plane = near_planes + c * room;
            for (int64_t j = 0; j < near_count; ++j) plane[j] = entries.planes[c * entries.stride + near[j]];
            for (int64_t j = near_count; j < near_count + kWide; ++j) plane[j] = plane[0];
        }
        for (int64_t box = first; box < first + together; ++box) {
            int64_t nearer_count = near_count;
            if (near_count > kFew) {
                const Box<kLength> of_box(boxes.lowest + box, boxes.highest + box, boxes.stride, 1);
                nearer_count = list_near_entries(of_box, near_planes, room, near_count, bounds, nearer);
            } else {
                for (int64_t j = 0; j < near_count; ++j) nearer[j] = static_cast<int32_t>(j);
            }
            for (int64_t i = box * kBox; i < (box + 1) * kBox; i += kCount) {
                Nearest<kLength, kCount> nearest(planes + i, stride);
                for (int64_t j = 0; j < nearer_count; ++j) {
                    float entry[kLength];
                    COREPRESS_UNROLL
                    for (int c = 0; c < kLength; ++c) entry[c] = near_planes[c * room + nearer[j]];
                    nearest.pass(entry, near[nearer[j]]);
                }
                nearest.write(codes + i, distances + i);
            }
        }
    }
}

void assign_close_vectors(const float* planes, int64_t stride, int64_t length, int64_t count, const BoxPlanes& boxes,
                          const EntryPlanes& entries, float* floats, int32_t* numbers, uint16_t* codes,
                          float* distances) {
    const auto run = [&](auto kernel) {
        kernel(planes, stride, count, boxes, entries, floats, numbers, codes, distances);
    };
    switch (length) {
        case 1: return run(nearest_of_near<1>);
        case 2: return run(nearest_of_near<2>);
        case 3: return run(nearest_of_near<3>);
        default: return run(nearest_of_near<4>);
    }
}

template <int kLength>
inline void add_members_of(const float* planes, int64_t stride, int64_t length, int64_t count, const float* shares,
                           const uint16_t* codes, int64_t k, double* sums) {
    constexpr int64_t kTogether = 32;
    const int64_t components = kLength > 0 ? kLength : length;
    // As rows first, from which the components of a vector come in one register.
    float rows[kTogether * (kLength > 0 ? kLength : 1)];
    for (int64_t begin = 0; begin < count; begin += kTogether) {
        const int64_t together = count - begin < kTogether ? count - begin : kTogether;
        for (int64_t i = 0; kLength > 0 && i < together; ++i) {
            for (int c = 0; c < kLength; ++c) rows[i * kLength + c] = planes[c * stride + begin + i];
        }
        for (int64_t i = 0; i < together; ++i) {
            const int64_t at = begin + i;
            const double share = shares == nullptr ? 1.0 : static_cast<double>(shares[at]);
            double* const sum = sums + (at % kMemberTurns * k + codes[at]) * (components + 1);
            for (int64_t c = 0; c < components; ++c) {
                const float component = kLength > 0 ? rows[i * components + c] : planes[c * stride + at];
                sum[c] += share * static_cast<double>(component);
            }
            sum[components] += share;
        }
    }
}

void add_members(const float* planes, int64_t stride, int64_t length, int64_t count, const float* shares,
                 const uint16_t* codes, int64_t k, double* sums) {
    const auto run = [&](auto kernel) { kernel(planes, stride, length, count, shares, codes, k, sums); };
    switch (length) {
        case 2: return run(add_members_of<2>);
        case 4: return run(add_members_of<4>);
        case 8: return run(add_members_of<8>);
        default: return run(add_members_of<0>);
    }
}

// In the order of add_errors.
void add_distances(const float* distances, const float* shares, int64_t count, DistanceSum* sum) {
    Doubles total = {}, largest = {};
    const auto add = [&](int64_t i, int64_t part) __attribute__((always_inline)) {
        Doubles distance, share;
        load(distances + i, part, distance);
        if (shares != nullptr) {
            load(shares + i, part, share);
            distance = distance * share;
        }
        total = total + distance;
        largest = greater(distance, largest);
    };
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) add(i, kLanes);
    if (i < count) add(i, count - i);
    sum->total = add_lanes(total, sum->total);
    sum->largest = largest_of(largest, sum->largest);
}

template <int kLength, bool kWeighted, bool kShared>
inline void approach_of(const float* planes, const float* weights, int64_t stride, int64_t length, int64_t count,
                        const float* shares, const float* centre, const float* distances, float* nearer, double* sums) {
    for (int64_t begin = 0; begin < count; begin += kTile) {
        const int64_t end = count - begin < kTile ? count : begin + kTile;
        Floats sum_of_lanes = {};
        for (int64_t i = begin; i < end; i += kWide) {
            Floats distance = {};
            const auto add = [&](int64_t component) __attribute__((always_inline)) {
                const int64_t at = component * stride + i;
                const Floats difference = floats_at<kWide>(planes + at) - centre[component];
                Floats square = difference * difference;
                if (kWeighted) square = square * floats_at<kWide>(weights + at);
                distance = component == 0 ? square : distance + square;
            };
            if constexpr (kLength > 0) {
                COREPRESS_UNROLL
                for (int c = 0; c < kLength; ++c) add(c);
            } else {
                for (int64_t component = 0; component < length; ++component) add(component);
            }
            if (kShared) distance = distance * floats_at<kWide>(shares + i);
            distance = lesser(distance, floats_at<kWide>(distances + i));
            store(distance, nearer + i);
            sum_of_lanes = sum_of_lanes + distance;
        }
        float lanes[kWide];
        store(sum_of_lanes, lanes);
        double sum = 0;
        for (const float lane : lanes) sum += static_cast<double>(lane);
        sums[begin / kTile] = sum;
    }
}

void approach(const float* planes, const float* weights, int64_t stride, int64_t length, int64_t count,
              const float* shares, const float* centre, const float* distances, float* nearer, double* sums) {
    const auto run = [&](auto kernel) {
        kernel(planes, weights, stride, length, count, shares, centre, distances, nearer, sums);
    };
    if (weights != nullptr)
        return shares != nullptr ? run(approach_of<0, true, true>) : run(approach_of<0, true, false>);
    if (length == 2) return shares != nullptr ? run(approach_of<2, false, true>) : run(approach_of<2, false, false>);
    if (length == 4) return shares != nullptr ? run(approach_of<4, false, true>) : run(approach_of<4, false, false>);
    shares != nullptr ? run(approach_of<0, false, true>) : run(approach_of<0, false, false>);
}

// Entries of so many bytes, moved as one.
template <typename Word>
inline void look_up_words(const uint8_t* codes, int64_t count, const void* lut, int entries, void* values) {
    const char* const from = static_cast<const char*>(lut);
    char* const to = static_cast<char*>(values);
    static_cast<void>(entries);
    int64_t i = 0;
#if defined(__AVX512F__)
    if constexpr (sizeof(Word) == 4) i = look_up_in_registers<Word>(codes, count, lut, entries, values);
#endif
    for (; i < count; ++i) {
        Word word;
        memcpy(&word, from + codes[i] * sizeof word, sizeof word);
        memcpy(to + i * static_cast<int64_t>(sizeof word), &word, sizeof word);
    }
}

struct TwoWords {
    uint64_t first, second;
};

template <typename Bits>
void look_up_vectors(const uint8_t* codes, int64_t blocks, int64_t inner, int64_t count, int64_t length,
                     const Bits* lut, int entries, Bits* values) {
    const int64_t bytes = inner == 1 ? length * static_cast<int64_t>(sizeof(Bits)) : 0;
    if (bytes == 4) return look_up_words<uint32_t>(codes, blocks, lut, entries, values);
    if (bytes == 8) return look_up_words<uint64_t>(codes, blocks, lut, entries, values);
    if (bytes == 16) return look_up_words<TwoWords>(codes, blocks, lut, entries, values);
    for (int64_t block = 0; block < blocks; ++block) {
        const uint8_t* const from = codes + block * count;
        Bits* const to = values + block * length * inner;
        for (int64_t i = 0; i < count; ++i) {
            const Bits* const entry = lut + from[i] * length;
            for (int64_t component = 0; component < length; ++component) to[component * inner + i] = entry[component];
        }
    }
}

// Short runs are written as whole registers, of which the next ones overwrite what is too much.
template <typename Bits>
void join_planes(const Bits* planes, int64_t stride, int64_t blocks, int64_t inner, int64_t length, Bits* values) {
    constexpr int64_t kPart = 32 / sizeof(Bits);
    const int64_t size = blocks * length * inner;
    int64_t at = 0;
    for (int64_t block = 0; block < blocks; ++block) {
        for (int64_t component = 0; component < length; ++component, at += inner) {
            const Bits* const from = planes + component * stride + block * inner;
            int64_t i = 0;
            for (; i < inner && at + i + kPart <= size; i += kPart) {
                memcpy(values + at + i, from + i, kPart * sizeof(Bits));
            }
            for (; i < inner; ++i) values[at + i] = from[i];
        }
    }
}
