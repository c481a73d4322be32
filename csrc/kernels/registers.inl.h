// Numbers side by side, in as many registers as they take at the level.
//
// GCC takes the compilers' own vectors apart, into single numbers, where they are wider than the level's registers and
// compared, chosen between or converted. So what is wider is two halves here, each of two halves again if need be.

#if defined(__AVX512F__)
constexpr int kRegisterBytes = 64;
#elif defined(__AVX2__)
constexpr int kRegisterBytes = 32;
#else
constexpr int kRegisterBytes = 16;
#endif

// Of loops over a few registers, which otherwise stay in memory.
#if defined(__clang__)
#define COREPRESS_UNROLL _Pragma("unroll")
#else
#define COREPRESS_UNROLL _Pragma("GCC unroll 8")
#endif

template <typename Number, int count, bool is_one = count * sizeof(Number) <= kRegisterBytes>
struct Wide;

template <typename Number, int count>
struct Wide<Number, count, true> {
    typedef Number Register __attribute__((vector_size(count * sizeof(Number))));
    static constexpr bool kIsOne = true;
    Register lanes;
};

template <typename Number, int count>
struct Wide<Number, count, false> {
    static constexpr bool kIsOne = false;
    Wide<Number, count / 2> low, high;
};

// What an operation on registers makes of each; all operands have as many lanes.
template <typename Result, typename Operation, typename First, typename... Others>
inline __attribute__((always_inline)) Result map_registers(const Operation& operation, const First& first,
                                                           const Others&... others) {
    if constexpr (Result::kIsOne && First::kIsOne) {
        return {operation(first.lanes, others.lanes...)};
    } else {
        using Half = decltype(Result::low);
        return {map_registers<Half>(operation, first.low, others.low...),
                map_registers<Half>(operation, first.high, others.high...)};
    }
}

template <typename Number, int count>
inline __attribute__((always_inline)) Wide<Number, count> broadcast(Number number) {
    using Result = Wide<Number, count>;
    if constexpr (Result::kIsOne) {
        return {number - typename Result::Register{}};  // not plus zeros, which -0 would not survive
    } else {
        return {broadcast<Number, count / 2>(number), broadcast<Number, count / 2>(number)};
    }
}

#define COREPRESS_LANE_OPERATOR(symbol)                                                                             \
    template <typename Number, int count>                                                                           \
    inline __attribute__((always_inline)) Wide<Number, count> operator symbol(const Wide<Number, count>& first,     \
                                                                              const Wide<Number, count>& second) {  \
        return map_registers<Wide<Number, count>>(                                                                  \
            [](const auto& a, const auto& b) __attribute__((always_inline)) { return a symbol b; }, first, second); \
    }                                                                                                               \
    template <typename Number, int count>                                                                           \
    inline __attribute__((always_inline)) Wide<Number, count> operator symbol(const Wide<Number, count>& first,     \
                                                                              Number second) {                      \
        return first symbol broadcast<Number, count>(second);                                                       \
    }
COREPRESS_LANE_OPERATOR(+)
COREPRESS_LANE_OPERATOR(-)
COREPRESS_LANE_OPERATOR(*)
COREPRESS_LANE_OPERATOR(/)
COREPRESS_LANE_OPERATOR(&)
#undef COREPRESS_LANE_OPERATOR

template <int bytes>
struct SignedOf;
template <>
struct SignedOf<4> {
    using Type = int32_t;
};
template <>
struct SignedOf<8> {
    using Type = int64_t;
};

// All bits of the lanes of `first` that are less than those of `second`.
template <typename Number, int count>
inline __attribute__((always_inline)) auto less(const Wide<Number, count>& first, const Wide<Number, count>& second) {
    using Result = Wide<typename SignedOf<sizeof(Number)>::Type, count>;
    return map_registers<Result>(
        [](const auto& a, const auto& b) __attribute__((always_inline)) {
            return reinterpret_cast<
                decltype(Wide<typename SignedOf<sizeof(Number)>::Type, sizeof a / sizeof(Number)>::lanes)>(a < b);
        },
        first, second);
}

template <typename Mask, typename Number, int count>
inline __attribute__((always_inline)) Wide<Number, count> choose(const Mask& mask, const Wide<Number, count>& set,
                                                                 const Wide<Number, count>& clear) {
    return map_registers<Wide<Number, count>>(
        [](const auto& bits, const auto& a, const auto& b) __attribute__((always_inline)) { return bits ? a : b; },
        mask, set, clear);
}

template <typename Number, int count>
inline __attribute__((always_inline)) Wide<Number, count> lesser(const Wide<Number, count>& first,
                                                                 const Wide<Number, count>& second) {
    return choose(less(first, second), first, second);
}

template <typename Number, int count>
inline __attribute__((always_inline)) Wide<Number, count> greater(const Wide<Number, count>& first,
                                                                  const Wide<Number, count>& second) {
    return choose(less(second, first), first, second);
}

// The numbers from a place on, wherever it is. A register at a time: copies of more go through memory.
template <typename Number, int count>
inline __attribute__((always_inline)) void load(const Number* numbers, Wide<Number, count>& loaded) {
    if constexpr (Wide<Number, count>::kIsOne) {
        memcpy(&loaded, numbers, sizeof loaded);
    } else {
        load(numbers, loaded.low);
        load(numbers + count / 2, loaded.high);
    }
}

template <typename Number, int count>
inline __attribute__((always_inline)) void store(const Wide<Number, count>& lanes, Number* numbers) {
    if constexpr (Wide<Number, count>::kIsOne) {
        memcpy(numbers, &lanes, sizeof lanes);
    } else {
        store(lanes.low, numbers);
        store(lanes.high, numbers + count / 2);
    }
}

template <int count>
inline __attribute__((always_inline)) void load(const float* singles, Wide<double, count>& loaded) {
    if constexpr (Wide<double, count>::kIsOne) {
        typedef float Singles __attribute__((vector_size(count * sizeof(float))));
        Singles some;
        memcpy(&some, singles, sizeof some);
        loaded.lanes = __builtin_convertvector(some, typename Wide<double, count>::Register);
    } else {
        load(singles, loaded.low);
        load(singles + count / 2, loaded.high);
    }
}

template <typename Number, typename Place>
struct Lane {
    Number number;
    Place place;
};

// The least of the lanes, none of which is NaN; of equal ones that of the first place.
template <typename Number, typename Place, int count>
inline __attribute__((always_inline)) Lane<Number, Place> least_lane(const Wide<Number, count>& numbers,
                                                                     const Wide<Place, count>& places) {
    Number number_of[count];
    Place place_of[count];
    store(numbers, number_of);
    store(places, place_of);
    // In two loops, of which each waits for less than one that finds both would.
    Number least = number_of[0];
    for (const Number number : number_of) least = number < least ? number : least;
    Place first = place_of[0];
    bool is_found = false;
    for (int lane = 0; lane < count; ++lane) {
        const bool is_first = number_of[lane] == least && (!is_found || place_of[lane] < first);
        first = is_first ? place_of[lane] : first;
        is_found |= is_first;
    }
    return {least, first};
}
