/* One sub-block per lane: ggml's searches for the scale (and min) of the least weighted error.
 *
 * Included by kquants.c once per width, which names the vector's operations. LOWER and HIGHER give
 * their second operand when the two are equal or one is no number, as ggml's comparisons do.
 */

#define V VECTOR
#define M MASK

/* x, its weights, and their sums, of SUB weights per lane. */
typedef struct {
    V x[SUB], w[SUB], low, high, sum_w, sum_x;
} NAME(Subs);

static inline M NAME(is_out)(V value) {
    return COMPARE(ABS(value), _CMP_NLE_UQ, SPLAT(RANGE));
}

/* round(slope * (x - from)) within 0..levels, as a float. */
static inline V NAME(find_level)(V x, V slope, V from, V levels) {
    const V magic = SPLAT(MAGIC);
    const V shifted = slope * (x - from) + magic;
    return LOWER(HIGHER(shifted, magic), magic + levels) - magic;
}

/* A weight counts by its size and that of its sub-block. */
static inline void NAME(weigh)(NAME(Subs) *subs) {
    V squares = SPLAT(0.f);
    for (int i = 0; i < SUB; i++) squares += subs->x[i] * subs->x[i];
    const V mean = ROOT(squares / 32.f);
    for (int i = 0; i < SUB; i++) subs->w[i] = mean + ABS(subs->x[i]);
}

/* A weight counts by its column's importance, its size and that of its block. */
static inline void NAME(weigh_by_importance)(const float *rows, const float *const *importance,
                                             NAME(Subs) *subs) {
    V spread;
    for (int b = 0; b < LANES / SUBS; b++) {
        float squares = 0;
        for (int i = 0; i < BLOCK; i++) squares += rows[BLOCK * b + i] * rows[BLOCK * b + i];
        for (int j = 0; j < SUBS; j++) spread[SUBS * b + j] = 2 * squares / BLOCK;
    }
    for (int i = 0; i < SUB; i++) {
        V column;
        for (int k = 0; k < LANES; k++) column[k] = importance[k / SUBS][SUB * (k % SUBS) + i];
        subs->w[i] = column * ROOT(spread + subs->x[i] * subs->x[i]);
    }
}

static inline void NAME(sum_up)(NAME(Subs) *subs) {
    V low = subs->x[0], high = low, sum_w = subs->w[0], sum_x = sum_w * low;
    for (int i = 1; i < SUB; i++) {
        low = LOWER(subs->x[i], low);
        high = HIGHER(subs->x[i], high);
        sum_w += subs->w[i];
        sum_x += subs->w[i] * subs->x[i];
    }
    subs->low = low;
    subs->high = high;
    subs->sum_w = sum_w;
    subs->sum_x = sum_x;
}

/* The state of the search; min moves with every better candidate. */
typedef struct {
    V scale, min, slope, from, best;
    M odd;
} NAME(Found);

/* A lane whose numbers leave the range in which `find_level` rounds as ggml does is odd. */
static inline void NAME(note_odd)(const NAME(Subs) *subs, V slope, V from, NAME(Found) *found) {
    found->odd = OR(found->odd, NAME(is_out)(slope * (subs->low - from)));
    found->odd = OR(found->odd, NAME(is_out)(slope * (subs->high - from)));
}

static inline void NAME(start)(const NAME(Subs) *subs, V levels, NAME(Found) *found) {
    const V least = LOWER(SPLAT(0.f), subs->low), slope = levels / (subs->high - least);
    const V scale = 1.f / slope;
    V best = SPLAT(0.f);
    for (int i = 0; i < SUB; i++) {
        const V level = NAME(find_level)(subs->x[i], slope, least, levels);
        const V error = scale * level + least - subs->x[i];
        best += subs->w[i] * (error * error);
    }
    *found = (NAME(Found)){scale, least, slope, least, best, COMPARE(best, _CMP_FALSE_OQ, best)};
    NAME(note_odd)(subs, slope, least, found);
}

/* Fit scale and min to the levels of one slope by least squares; keep them where better. */
static inline void NAME(try_slope)(const NAME(Subs) *subs, V levels, V slope, NAME(Found) *found) {
    const V zero = SPLAT(0.f), from = found->min;
    V L[SUB], sum_l = zero, sum_l2 = zero, sum_xl = zero;
    for (int i = 0; i < SUB; i++) {
        L[i] = NAME(find_level)(subs->x[i], slope, from, levels);
        const V weighted = subs->w[i] * L[i];
        sum_l += weighted;
        sum_l2 += weighted * L[i];
        sum_xl += weighted * subs->x[i];
    }
    const V D = subs->sum_w * sum_l2 - sum_l * sum_l;
    V scale = (subs->sum_w * sum_xl - subs->sum_x * sum_l) / D;
    V min = (sum_l2 * subs->sum_x - sum_l * sum_xl) / D;
    const M above = COMPARE(min, _CMP_GT_OQ, zero);
    scale = SELECT(above, sum_xl / sum_l2, scale);
    min = SELECT(above, zero, min);
    V total = zero;
    for (int i = 0; i < SUB; i++) {
        const V error = scale * L[i] + min - subs->x[i];
        total += subs->w[i] * (error * error);
    }
    const M solved = COMPARE(D, _CMP_GT_OQ, zero);
    const M better = AND(solved, COMPARE(total, _CMP_LT_OQ, found->best));
    found->best = SELECT(better, total, found->best);
    found->scale = SELECT(better, scale, found->scale);
    found->min = SELECT(better, min, found->min);
    found->slope = SELECT(better, slope, found->slope);
    found->from = SELECT(better, from, found->from);
}

/* LANES sub-blocks, that is LANES / SUBS blocks. `importance`: one pointer per block, or none. */
static void NAME(fit_with_min)(const float *rows, const float *const *importance,
                               const Search *search, Fit *fit) {
    NAME(Subs) subs;
    for (int i = 0; i < SUB; i++)
        for (int k = 0; k < LANES; k++) subs.x[i][k] = rows[SUB * k + i];
    if (importance)
        NAME(weigh_by_importance)(rows, importance, &subs);
    else
        NAME(weigh)(&subs);
    NAME(sum_up)(&subs);

    const V levels = SPLAT((float)search->levels), zero = SPLAT(0.f);
    NAME(Found) found;
    NAME(start)(&subs, levels, &found);
    for (int try = 0; try < search->tries; try++) {
        const float steps = search->first + search->step * try + search->levels;
        /* From the min of the best fit so far, as ggml has it. */
        const V slope = steps / (subs.high - found.min);
        NAME(note_odd)(&subs, slope, found.min, &found);
        NAME(try_slope)(&subs, levels, slope, &found);
    }

    /* Weights that are all one number, zero or below, have that min and no scale. */
    const V least = LOWER(zero, subs.low);
    const M alive = COMPARE(subs.high, _CMP_NEQ_UQ, least);
    STORE(fit->scale, SELECT(alive, found.scale, zero));
    STORE(fit->min, -SELECT(alive, found.min, least));
    STORE(fit->slope, SELECT(alive, found.slope, zero));
    STORE(fit->from, SELECT(alive, found.from, zero));
    STORE(fit->sum_w, subs.sum_w);
    fit->odd = BITS(found.odd) & BITS(alive);
}

/* Levels -32..31 of the sums of one slope: without a min, the scale is their quotient. */
static inline void NAME(sum_slope)(const V *x, const V *w, const V *wx, V slope, V *sum_xl,
                                   V *sum_l2) {
    const V magic = SPLAT(MAGIC), lowest = SPLAT(MAGIC - 32), highest = SPLAT(MAGIC + 31);
    V xl = SPLAT(0.f), l2 = SPLAT(0.f);
    for (int i = 0; i < SUB6; i++) {
        const V level = LOWER(HIGHER(slope * x[i] + magic, lowest), highest) - magic;
        xl += wx[i] * level;
        l2 += w[i] * level * level;
    }
    *sum_xl = xl;
    *sum_l2 = l2;
}

/* LANES sub-blocks of Q6_K of a block, from `lane` on. */
static void NAME(fit_symmetric)(const float *rows, const float *importance, int lane, Fit *fit) {
    const V zero = SPLAT(0.f);
    V x[SUB6], w[SUB6], wx[SUB6], top = zero, size = zero;
    for (int i = 0; i < SUB6; i++) {
        for (int k = 0; k < LANES; k++) x[i][k] = rows[SUB6 * (lane + k) + i];
        const M larger = COMPARE(ABS(x[i]), _CMP_GT_OQ, size);
        size = SELECT(larger, ABS(x[i]), size);
        top = SELECT(larger, x[i], top);
        w[i] = x[i] * x[i];
        if (importance)
            for (int k = 0; k < LANES; k++) w[i][k] = importance[SUB6 * (lane + k) + i];
        wx[i] = w[i] * x[i];
    }

    V slope = -32.f / top, sum_xl, sum_l2;
    NAME(sum_slope)(x, w, wx, slope, &sum_xl, &sum_l2);
    V scale = SELECT(COMPARE(sum_l2, _CMP_NEQ_UQ, zero), sum_xl / sum_l2, zero);
    V best = scale * sum_xl;
    for (int try = -9; try <= 9; try++) {
        if (try == 0) continue;
        const V steep = -(32 + 0.1f * try) / top;
        NAME(sum_slope)(x, w, wx, steep, &sum_xl, &sum_l2);
        const M found = COMPARE(sum_l2, _CMP_GT_OQ, zero);
        const M better = AND(found, COMPARE(sum_xl * sum_xl, _CMP_GT_OQ, best * sum_l2));
        scale = SELECT(better, sum_xl / sum_l2, scale);
        best = SELECT(better, scale * sum_xl, best);
        slope = SELECT(better, steep, slope);
    }
    const M alive = COMPARE(size, _CMP_NLT_UQ, SPLAT(EPSILON));
    STORE(fit->scale + lane, SELECT(alive, scale, zero));
    STORE(fit->slope + lane, SELECT(alive, slope, zero));
}

/* LANES sub-blocks of IQ4_XS: the scale of the least squared error under the curve of values. */
static void NAME(fit_curve)(const float *rows, const float *const *importance, const Curve *curve,
                            Fit *fit) {
    const V zero = SPLAT(0.f);
    NAME(Subs) subs;
    V top = zero, size = zero;
    for (int i = 0; i < SUB; i++) {
        for (int k = 0; k < LANES; k++) subs.x[i][k] = rows[SUB * k + i];
        const M larger = COMPARE(ABS(subs.x[i]), _CMP_GT_OQ, size);
        size = SELECT(larger, ABS(subs.x[i]), size);
        top = SELECT(larger, subs.x[i], top);
        subs.w[i] = subs.x[i] * subs.x[i];
    }
    if (importance) NAME(weigh_by_importance)(rows, importance, &subs);

    V scale = zero, best = zero;
    for (int try = -8; try <= 7; try++) {
        /* The first is the slope of try 0, rounded otherwise. */
        const V slope = try == -8 ? 1.f / (-top / (float)CURVE[0]) : (float)(try + CURVE[0]) / top;
        V sum_qx = zero, sum_q2 = zero;
        for (int i = 0; i < SUB; i++) {
            V half = FLOOR(2.f * (slope * subs.x[i]));
            half = LOWER(HIGHER(half, SPLAT(-256.f)), SPLAT(255.f));
            const V q = LOOK_UP(curve->value + HALVES / 2, half), weighted = subs.w[i] * q;
            sum_qx += weighted * subs.x[i];
            sum_q2 += weighted * q;
        }
        const M found = COMPARE(sum_q2, _CMP_GT_OQ, zero);
        const M better = AND(found, COMPARE(sum_qx * sum_qx, _CMP_GT_OQ, best * sum_q2));
        const M taken = try == -8 ? found : better;
        scale = SELECT(taken, sum_qx / sum_q2, scale);
        best = SELECT(taken, scale * sum_qx, best);
    }
    const M alive = COMPARE(size, _CMP_NLT_UQ, SPLAT(EPSILON));
    STORE(fit->scale, SELECT(alive, scale, zero));
}

#undef V
#undef M
#undef LANES
#undef VECTOR
#undef MASK
#undef SPLAT
#undef STORE
#undef LOWER
#undef HIGHER
#undef ROOT
#undef ABS
#undef COMPARE
#undef AND
#undef OR
#undef SELECT
#undef BITS
#undef FLOOR
#undef LOOK_UP
