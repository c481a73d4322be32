// The cheapest of several links to a cut, by the lanes of candidates or of cuts. Of equal candidates the first wins.

using Places = Wide<int64_t, kLanes>;

PathLink cheapest_link(const PathCuts& cuts, int32_t begin, int32_t end, int32_t to) {
    constexpr int64_t kFirst[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7};
    const Doubles weight_to = broadcast<double, kLanes>(cuts.weight[to]);
    const Doubles moment_to = broadcast<double, kLanes>(cuts.moment[to]);
    const Doubles square_to = broadcast<double, kLanes>(cuts.square[to]);
    const Places last = broadcast<int64_t, kLanes>(end);
    Doubles least = broadcast<double, kLanes>(__builtin_inf());
    Places place, found = broadcast<int64_t, kLanes>(begin);
    load(kFirst, place);
    place = place + int64_t{begin};
    for (int32_t i = begin; i < end; i += kLanes, place = place + kLanes) {
        Doubles weight, moment, square, best;
        load(cuts.weight + i, weight);
        load(cuts.moment + i, moment);
        load(cuts.square + i, square);
        load(cuts.best + i, best);
        const Doubles first_moment = moment_to - moment;
        const Doubles cost = best + ((square_to - square) - first_moment * first_moment / (weight_to - weight));
        const Places wins = less(cost, least) & less(place, last);
        least = choose(wins, cost, least);
        found = choose(wins, place, found);
    }
    const auto cheapest = least_lane(least, found);
    return {cheapest.number, static_cast<int32_t>(cheapest.place)};
}

void cheapest_links(const PathCuts& cuts, int32_t begin, int32_t end, int32_t to, double price, double* costs,
                    int32_t* starts) {
    Doubles weight, moment, square, least = broadcast<double, kLanes>(__builtin_inf());
    Places found = broadcast<int64_t, kLanes>(begin);
    load(cuts.weight + to, weight);
    load(cuts.moment + to, moment);
    load(cuts.square + to, square);
    for (int32_t i = begin; i < end; ++i) {
        const Doubles first_moment = moment - cuts.moment[i];
        const Doubles of_rest = first_moment * first_moment / (weight - cuts.weight[i]);
        const Doubles cost = broadcast<double, kLanes>(cuts.best[i]) + ((square - cuts.square[i]) - of_rest);
        const Places wins = less(cost, least);
        least = choose(wins, cost, least);
        found = choose(wins, broadcast<int64_t, kLanes>(i), found);
    }
    store(least + price, costs);
    int64_t places[kLanes];
    store(found, places);
    for (int64_t lane = 0; lane < kLanes; ++lane) starts[lane] = static_cast<int32_t>(places[lane]);
}
