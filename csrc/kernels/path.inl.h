// The cheapest of several links to a cut, by the lanes of candidates or of cuts. Of equal candidates the first wins.

typedef int64_t Places __attribute__((vector_size(8 * sizeof(int64_t))));

inline __attribute__((always_inline)) void load(const double* numbers, Doubles& loaded) {
    memcpy(&loaded, numbers, sizeof loaded);
}

PathLink cheapest_link(const PathCuts& cuts, int32_t begin, int32_t end, int32_t to) {
    constexpr Places kFirst = {0, 1, 2, 3, 4, 5, 6, 7};
    const double weight_to = cuts.weight[to], moment_to = cuts.moment[to], square_to = cuts.square[to];
    Doubles least = Doubles{} + __builtin_inf();
    Places place = kFirst + begin, found = Places{} + begin;
    for (int32_t i = begin; i < end; i += kLanes, place += kLanes) {
        Doubles weight, moment, square, best;
        load(cuts.weight + i, weight);
        load(cuts.moment + i, moment);
        load(cuts.square + i, square);
        load(cuts.best + i, best);
        const Doubles first_moment = moment_to - moment;
        const Doubles cost = best + ((square_to - square) - first_moment * first_moment / (weight_to - weight));
        const Places wins = (cost < least) & (place < end);
        least = wins ? cost : least;
        found = wins ? place : found;
    }
    double cost = least[0];
    for (int64_t lane = 1; lane < kLanes; ++lane) cost = least[lane] < cost ? least[lane] : cost;
    const Places firsts = least == Doubles{} + cost ? found : Places{} + end;
    int64_t from = firsts[0];
    for (int64_t lane = 1; lane < kLanes; ++lane) from = firsts[lane] < from ? firsts[lane] : from;
    return {cost, static_cast<int32_t>(from)};
}

void cheapest_links(const PathCuts& cuts, int32_t begin, int32_t end, int32_t to, double price, double* costs,
                    int32_t* starts) {
    Doubles weight, moment, square, least = Doubles{} + __builtin_inf();
    Places found = Places{} + begin;
    load(cuts.weight + to, weight);
    load(cuts.moment + to, moment);
    load(cuts.square + to, square);
    for (int32_t i = begin; i < end; ++i) {
        const Doubles first_moment = moment - cuts.moment[i];
        const Doubles cost =
            cuts.best[i] + ((square - cuts.square[i]) - first_moment * first_moment / (weight - cuts.weight[i]));
        const Places wins = cost < least;
        least = wins ? cost : least;
        found = wins ? Places{} + i : found;
    }
    least += price;
    memcpy(costs, &least, sizeof least);
    for (int32_t lane = 0; lane < kLanes; ++lane) starts[lane] = static_cast<int32_t>(found[lane]);
}
