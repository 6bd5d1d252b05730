/* Scalar parts of kquants.c: what was found for the sub-blocks of a block -> the block's bytes. */

enum { BLOCK = 256, MOST_LANES = 16 };
/* Q4_K and Q5_K: 8 sub-blocks of 32 weights. Q6_K: 16 of 16. */
enum { SUB = 32, SUBS = BLOCK / SUB, SUB6 = 16, SUBS6 = BLOCK / SUB6 };
enum { Q4_BYTES = 144, Q5_BYTES = 176, Q6_BYTES = 210, Q8_BYTES = 34, IQ4_BYTES = 136 };
enum { SCALES_BYTES = 16, MOST_SCALE = 63 };

/* Added to a number within +-RANGE, it leaves the nearest integer in the low bits. */
#define MAGIC 12582912.f
#define RANGE 4194303.f
/* What is smaller than this counts as zero. */
#define EPSILON 1e-15f

/* The 16 values of IQ4_XS lie closer together near zero. */
static const int8_t CURVE[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                 1,    13,   25,  38,  53,  69,  89,  113};

/* The nearest of them, by floor(2 * x) + HALVES / 2: the middles between two lie on halves. */
enum { HALVES = 512 };
typedef struct {
    uint8_t level[HALVES];
    float value[HALVES];
} Curve;

/* The levels are 0..levels; candidate i has the slope (first + step * i + levels) / range. */
typedef struct {
    int levels, tries;
    float first, step;
} Search;

/* What was found per sub-block; its levels are round(slope * (x - from)). odd: a bit per lane. */
typedef struct {
    float scale[MOST_LANES], min[MOST_LANES], slope[MOST_LANES], from[MOST_LANES];
    float sum_w[MOST_LANES];
    uint32_t odd;
} Fit;

static inline int round_int(float value) {
    const float shifted = value + MAGIC;
    int32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    return (bits & 0x007fffff) - 0x00400000;
}

static inline int clamp(int value, int low, int high) {
    const int raised = value < low ? low : value;
    return raised > high ? high : raised;
}

static inline uint16_t to_half(float value) {
    return (uint16_t)_mm_extract_epi16(_mm_cvtps_ph(_mm_set_ss(value), 0), 0);
}

static inline float from_half(uint16_t half) {
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half)));
}

static inline bool is_finite_half(uint16_t half) {
    return (half & 0x7c00) != 0x7c00;
}

/* Whether 256 weights are below 2^128 (finite), or another power of two, as its bits. */
static bool are_below(const float *x, uint32_t limit_bits) {
    uint32_t found = 0;
    for (int i = 0; i < BLOCK; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        found |= (bits & 0x7f800000) >= limit_bits;
    }
    return !found;
}

static bool are_finite(const float *x) {
    return are_below(x, 0x7f800000);
}

static float find_largest(const float *values) {
    float found = 0;
    for (int j = 0; j < SUBS; j++) found = values[j] > found ? values[j] : found;
    return found;
}

/* Round one block's scales or mins to 0..63; return what one step is worth. */
typedef float (*Scales)(const float *values, const float *w, uint8_t *out);

static float make_scales(const float *values, const float *w, uint8_t *out) {
    (void)w;
    const float top = find_largest(values);
    const float factor = top > 0 ? 63.f / top : 0.f;
    for (int j = 0; j < SUBS; j++) {
        /* Through a byte before the limit, as ggml has it: -1 becomes 63. */
        const uint8_t rounded = round_int(factor * values[j]);
        out[j] = rounded < MOST_SCALE ? rounded : MOST_SCALE;
    }
    return top / 63.f;
}

/* The slope of nine that loses least; the first, 63 / top, is not held to 63 levels. */
static float choose_slope(const float *values, const float *w, float top) {
    float slope = MOST_SCALE / top, best = 0;
    const float unit = 1 / slope;
    for (int j = 0; j < SUBS; j++) {
        const float lost = values[j] - unit * (uint8_t)round_int(slope * values[j]);
        best += w[j] * lost * lost;
    }
    for (int try = -4; try <= 4; try++) {
        if (try == 0) continue;
        const float steep = (0.1f * try + MOST_SCALE) / top, size = 1 / steep;
        float total = 0;
        for (int j = 0; j < SUBS; j++) {
            const int level = round_int(steep * values[j]);
            const float lost = values[j] - size * (level < MOST_SCALE ? level : MOST_SCALE);
            total += w[j] * lost * lost;
        }
        if (total < best) {
            best = total;
            slope = steep;
        }
    }
    return slope;
}

/* The same with the least loss, each of the 8 weighted by `w`. */
static float make_scales_weighted(const float *values, const float *w, uint8_t *out) {
    const float top = find_largest(values);
    memset(out, 0, SUBS);
    if (top < EPSILON) return 0;
    const float slope = choose_slope(values, w, top);
    float sum_xl = 0, sum_l2 = 0;
    for (int j = 0; j < SUBS; j++) {
        const int rounded = round_int(slope * values[j]);
        const int level = rounded < MOST_SCALE ? rounded : MOST_SCALE;
        out[j] = level;
        sum_xl += w[j] * values[j] * level;
        sum_l2 += w[j] * level * level;
    }
    for (int turn = 0, changed = 1; turn < 5 && changed; turn++) {
        changed = 0;
        for (int j = 0; j < SUBS; j++) {
            float xl = sum_xl - w[j] * values[j] * out[j], l2 = sum_l2 - w[j] * out[j] * out[j];
            if (!(xl > 0 && l2 > 0)) continue;
            const int rounded = round_int(values[j] * l2 / xl);
            const int level = rounded < MOST_SCALE ? rounded : MOST_SCALE;
            if (level == out[j]) continue;
            xl += w[j] * values[j] * level;
            l2 += w[j] * level * level;
            if (xl * xl * sum_l2 > sum_xl * sum_xl * l2) {
                out[j] = level;
                sum_xl = xl;
                sum_l2 = l2;
                changed = 1;
            }
        }
    }
    return sum_l2 > 0 ? sum_xl / sum_l2 : 0.f;
}

/* The six bits of 8 scales and 8 mins in 12 bytes. */
static void pack_scales(const uint8_t *scale, const uint8_t *min, uint8_t *out) {
    for (int j = 0; j < 4; j++) {
        out[j] = scale[j] | (scale[j + 4] >> 4) << 6;
        out[j + 4] = min[j] | (min[j + 4] >> 4) << 6;
        out[j + 8] = (scale[j + 4] & 15) | (min[j + 4] & 15) << 4;
    }
}

/* Write 16 bytes of scales and the levels; return false when ggml must make the block. */
static bool finish(const float *x, const Fit *fit, int lane, int levels, Scales make, uint8_t *out,
                   uint8_t *L) {
    uint8_t scales[SUBS], mins[SUBS], beyond = 0;
    const float *w = fit->sum_w + lane;
    const uint16_t halves[2] = {
        to_half(make(fit->scale + lane, w, scales)), to_half(make(fit->min + lane, w, mins))};
    memcpy(out, halves, sizeof halves);
    pack_scales(scales, mins, out + sizeof halves);
    for (int j = 0; j < SUBS; j++, x += SUB, L += SUB) {
        const float d = from_half(halves[0]) * scales[j], m = from_half(halves[1]) * mins[j];
        const float slope = fit->slope[lane + j], from = fit->from[lane + j];
        beyond |= scales[j] | mins[j];
        if (d != 0)
            for (int i = 0; i < SUB; i++) L[i] = clamp(round_int((x[i] + m) / d), 0, levels);
        else
            for (int i = 0; i < SUB; i++) L[i] = clamp(round_int(slope * (x[i] - from)), 0, levels);
    }
    const bool odd = fit->odd >> lane & ((1u << SUBS) - 1);
    return !odd && beyond <= MOST_SCALE && is_finite_half(halves[0]) && is_finite_half(halves[1]);
}

static void pack_low_bits(const uint8_t *L, uint8_t *out) {
    for (int pair = 0; pair < SUBS / 2; pair++, L += 2 * SUB, out += SUB)
        for (int i = 0; i < SUB; i++) out[i] = (L[i] & 15) | L[i + SUB] << 4;
}

static void pack_fifth_bits(const uint8_t *L, uint8_t *out) {
    uint8_t found[SUB] = {0};
    for (int j = 0; j < SUBS; j++, L += SUB) {
        const uint8_t bit = 1 << j;
        /* Minus one is all bits; a comparison would not be vectorized. */
        for (int i = 0; i < SUB; i++) found[i] |= (uint8_t)-(L[i] >> 4) & bit;
    }
    memcpy(out, found, SUB);
}

static void pack_q6(const uint8_t *L, uint8_t *low, uint8_t *high) {
    for (int half = 0; half < 2; half++, L += BLOCK / 2, low += 64, high += 32) {
        for (int i = 0; i < 64; i++) low[i] = (L[i] & 15) | L[i + 64] << 4;
        for (int i = 0; i < 32; i++)
            high[i] = L[i] >> 4 | L[i + 32] >> 4 << 2 | L[i + 64] >> 4 << 4 | L[i + 96] >> 4 << 6;
    }
}

/* A sub-block whose scale is rounded to zero has the levels of the search; without one, zeros. */
static void keep_levels_q6(const float *x, float slope, uint8_t *L) {
    for (int i = 0; i < SUB6; i++)
        L[i] = slope == 0 ? 0 : clamp(round_int(slope * x[i]), -32, 31) + 32;
}

/* Write the block; return false when ggml must make it. */
static bool finish_q6(const float *x, const Fit *fit, uint8_t *out) {
    float top = 0;
    for (int j = 0; j < SUBS6; j++)
        if (fabsf(fit->scale[j]) > fabsf(top)) top = fit->scale[j];
    memset(out, 0, Q6_BYTES);
    if (fabsf(top) < EPSILON) return true;
    const float factor = -128.f / top;
    const uint16_t half = to_half(1 / factor);
    int8_t *scales = (int8_t *)out + BLOCK / 2 + BLOCK / 4;
    uint8_t L[BLOCK];
    float d[BLOCK];
    for (int j = 0; j < SUBS6; j++) {
        const int rounded = round_int(factor * fit->scale[j]);
        scales[j] = rounded < 127 ? rounded : 127;
        for (int i = 0; i < SUB6; i++) d[SUB6 * j + i] = from_half(half) * scales[j];
    }
    for (int i = 0; i < BLOCK; i++) L[i] = clamp(round_int(x[i] / d[i]), -32, 31) + 32;
    for (int j = 0; j < SUBS6; j++)
        if (d[SUB6 * j] == 0) keep_levels_q6(x + SUB6 * j, fit->slope[j], L + SUB6 * j);
    pack_q6(L, out, out + BLOCK / 2);
    memcpy(scales + SUBS6, &half, sizeof half);
    return is_finite_half(half);
}

/* The largest of 32 weights without its sign; NaN counts as larger than all. */
static inline float find_top(const __m256 *x) {
    __m256i top = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) {
        /* Without the sign, floats are in the order of their bits. */
        const __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.f), x[i]);
        top = _mm256_max_epi32(top, _mm256_castps_si256(size));
    }
    __m128i half = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    return _mm_cvtss_f32(_mm_castsi128_ps(half));
}

/* Write 32 weights as Q8_0; return false when ggml must. */
static inline bool make_q8(const float *rows, uint8_t *out) {
    __m256 x[4];
    for (int i = 0; i < 4; i++) x[i] = _mm256_loadu_ps(rows + 8 * i);
    const float d = find_top(x) / 127, slope = d != 0 ? 1.f / d : 0.f;
    const uint16_t half = to_half(d);
    if (!is_finite_half(half) || isinf(slope)) return false;
    memcpy(out, &half, sizeof half);
    __m256i levels[4];
    for (int i = 0; i < 4; i++) {
        /* To the nearest, halves away from zero, as roundf: a true comparison is -1. */
        const __m256 value = x[i] * _mm256_set1_ps(slope);
        const __m256i whole = _mm256_cvttps_epi32(value);
        const __m256 rest = value - _mm256_cvtepi32_ps(whole);
        const __m256 up = _mm256_cmp_ps(rest, _mm256_set1_ps(0.5f), _CMP_GE_OQ);
        const __m256 down = _mm256_cmp_ps(rest, _mm256_set1_ps(-0.5f), _CMP_LE_OQ);
        levels[i] = _mm256_sub_epi32(whole, _mm256_castps_si256(up));
        levels[i] = _mm256_add_epi32(levels[i], _mm256_castps_si256(down));
    }
    /* The packs work within halves of a vector; the permutation puts their fours in order. */
    const __m256i low = _mm256_packs_epi32(levels[0], levels[1]);
    const __m256i packed = _mm256_packs_epi16(low, _mm256_packs_epi32(levels[2], levels[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256((void *)(out + sizeof half), _mm256_permutevar8x32_epi32(packed, order));
    return true;
}

static void make_curve(Curve *curve) {
    for (int i = 0, level = 0; i < HALVES; i++) {
        /* In the middle of two, the upper one. */
        while (level < 15 && i - HALVES / 2 >= CURVE[level] + CURVE[level + 1]) level++;
        curve->level[i] = level;
        curve->value[i] = CURVE[level];
    }
}

static inline int find_half(float value) {
    const float half = floorf(2 * value);
    return (half < -256 ? -256 : half > 255 ? 255 : (int)half) + HALVES / 2;
}

/* Write 256 weights as IQ4_XS, given the scales of their sub-blocks; false when ggml must. */
static bool finish_iq4(const float *x, const float *found, const Curve *curve, uint8_t *out) {
    float top = 0;
    for (int j = 0; j < SUBS; j++)
        if (fabsf(found[j]) > fabsf(top)) top = found[j];
    const float d = -top / 32, factor = d != 0 ? 1 / d : 0.f;
    uint16_t head[2] = {to_half(d), 0};
    uint8_t *low = memset(out + sizeof head, 0, SUBS / 2), *q = low + SUBS / 2;
    for (int j = 0; j < SUBS; j++, x += SUB, q += SUB / 2) {
        const int scale = clamp(round_int(factor * found[j]), -32, 31);
        const float step = d * scale, slope = step != 0 ? 1 / step : 0.f;
        if (!isfinite(slope)) return false;
        head[1] |= (scale + 32) >> 4 << 2 * j;
        low[j / 2] |= ((scale + 32) & 15) << 4 * (j % 2);
        for (int i = 0; i < SUB / 2; i++)
            q[i] = curve->level[find_half(slope * x[i])] |
                   curve->level[find_half(slope * x[i + SUB / 2])] << 4;
    }
    memcpy(out, head, sizeof head);
    return is_finite_half(head[0]);
}
