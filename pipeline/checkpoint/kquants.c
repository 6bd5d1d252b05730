/* Rows of float32 -> blocks of Q4_K, Q5_K, Q6_K, Q8_0 and IQ4_XS: each byte as ggml makes it.
 *
 * ggml fits the sub-blocks of a block one after the other, weight by weight. Here each lane of a
 * vector holds one sub-block and goes through ggml's own operations in ggml's own order, so that it
 * rounds to the same bits. That needs -ffp-contract=off: ggml's base library has no fused
 * multiply-add. Where the shorter arithmetic of the lanes could part from ggml's (weights that are
 * not finite, a search out of range), the block goes to ggml itself, `upstream`.
 *
 * The rules are those of ggml-quants.c: make_qkx2_quants, make_qkx3_quants, make_qp_quants,
 * make_qx_quants, quantize_row_q8_0_ref and quantize_row_iq4_nl_impl. The lanes are in
 * kquants_lanes.h, included once per width, 8 lanes with AVX2 and 16 with AVX-512; what is done
 * block by block, in kquants_blocks.h. From FP8 to BF16: kquants_fp8.h.
 */

#pragma GCC target("avx2,f16c")

#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "kquants_blocks.h"
#include "kquants_fp8.h"

/* ggml's own function for the type, quantize_q4_K and so on. */
typedef size_t (*Upstream)(const float *x, void *out, int64_t rows, int64_t columns,
                           const float *importance);

#define JOIN_(name, lanes) name##_##lanes
#define JOIN(name, lanes) JOIN_(name, lanes)
#define NAME(name) JOIN(name, LANES)

#define LANES 8
#define VECTOR __m256
#define MASK __m256
#define SPLAT(a) _mm256_set1_ps(a)
#define STORE(to, a) _mm256_storeu_ps(to, a)
#define LOWER(a, b) _mm256_min_ps(a, b)
#define HIGHER(a, b) _mm256_max_ps(a, b)
#define ROOT(a) _mm256_sqrt_ps(a)
#define ABS(a) _mm256_andnot_ps(_mm256_set1_ps(-0.f), a)
#define COMPARE(a, how, b) _mm256_cmp_ps(a, b, how)
#define AND(m, n) _mm256_and_ps(m, n)
#define OR(m, n) _mm256_or_ps(m, n)
#define SELECT(m, yes, no) _mm256_blendv_ps(no, yes, m)
#define BITS(m) (uint32_t)_mm256_movemask_ps(m)
#define FLOOR(a) _mm256_floor_ps(a)
#define LOOK_UP(table, a) _mm256_i32gather_ps(table, _mm256_cvttps_epi32(a), 4)
#include "kquants_lanes.h"

#pragma GCC push_options
#pragma GCC target("avx512f")
#define LANES 16
#define VECTOR __m512
#define MASK __mmask16
#define SPLAT(a) _mm512_set1_ps(a)
#define STORE(to, a) _mm512_storeu_ps(to, a)
#define LOWER(a, b) _mm512_min_ps(a, b)
#define HIGHER(a, b) _mm512_max_ps(a, b)
#define ROOT(a) _mm512_sqrt_ps(a)
#define ABS(a) _mm512_abs_ps(a)
#define COMPARE(a, how, b) _mm512_cmp_ps_mask(a, b, how)
#define AND(m, n) (__mmask16)((m) & (n))
#define OR(m, n) (__mmask16)((m) | (n))
#define SELECT(m, yes, no) _mm512_mask_blend_ps(m, no, yes)
#define BITS(m) (uint32_t)(m)
#define FLOOR(a) _mm512_floor_ps(a)
#define LOOK_UP(table, a) _mm512_i32gather_ps(_mm512_cvttps_epi32(a), table, 4)
#include "kquants_lanes.h"
#pragma GCC pop_options

/* Return the widest form that this CPU can run, 0 where it can run none. */
int kquants_lanes(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("f16c")) return 0;
    return __builtin_cpu_supports("avx512f") ? 16 : 8;
}

/* What the functions are given; each returns how many blocks it left to ggml.
 * `lanes` is at most what kquants_lanes says. */
typedef struct {
    const float *x;
    uint8_t *out;
    int64_t rows, columns;
    const float *importance;
    Upstream upstream;
    int32_t lanes;
} Job;

static const float *find_importance(const Job *job, int64_t block) {
    return job->importance ? job->importance + block * BLOCK % job->columns : NULL;
}

/* Put the importance of each of these blocks into `found` and return that; NULL without any. */
static const float *const *find_importances(const Job *job, int64_t block, int count,
                                            const float **found) {
    for (int b = 0; b < count; b++) found[b] = find_importance(job, block + b);
    return job->importance ? found : NULL;
}

static void fit_blocks(const Job *job, int64_t block, int count, const Search *search, Fit *fit) {
    const float *found[2], *x = job->x + block * BLOCK;
    const float *const *importance = find_importances(job, block, count, found);
    if (count == 2)
        fit_with_min_16(x, importance, search, fit);
    else
        fit_with_min_8(x, importance, search, fit);
}

static void fit_curves(const Job *job, int64_t block, int count, const Curve *curve, Fit *fit) {
    const float *found[2], *x = job->x + block * BLOCK;
    const float *const *importance = find_importances(job, block, count, found);
    if (count == 2)
        fit_curve_16(x, importance, curve, fit);
    else
        fit_curve_8(x, importance, curve, fit);
}

static void send_upstream(const Job *job, int64_t block, uint8_t *out) {
    job->upstream(job->x + block * BLOCK, out, 1, BLOCK, find_importance(job, block));
}

static int64_t quantize_with_min(const Job *job, const Search *search, int block_bytes) {
    const Scales make = job->importance ? make_scales_weighted : make_scales;
    const int64_t blocks = job->rows * job->columns / BLOCK;
    uint8_t *out = job->out, L[BLOCK];
    int64_t sent = 0;
    Fit fit;
    for (int64_t done = 0; done < blocks;) {
        const int count = job->lanes == 16 && blocks - done > 1 ? 2 : 1;
        fit_blocks(job, done, count, search, &fit);
        for (int b = 0; b < count; b++, done++, out += block_bytes) {
            const float *x = job->x + done * BLOCK;
            if (!are_finite(x) || !finish(x, &fit, b * SUBS, search->levels, make, out, L)) {
                send_upstream(job, done, out);
                sent++;
                continue;
            }
            if (search->levels > 15) pack_fifth_bits(L, out + SCALES_BYTES);
            pack_low_bits(L, out + block_bytes - BLOCK / 2);
        }
    }
    return sent;
}

int64_t kquants_q4_K(const Job *job) {
    static const Search plain = {15, 21, -1.f, 0.1f}, weighted = {15, 37, -0.9f, 0.05f};
    return quantize_with_min(job, job->importance ? &weighted : &plain, Q4_BYTES);
}

int64_t kquants_q5_K(const Job *job) {
    static const Search plain = {31, 16, -0.5f, 0.1f}, weighted = {31, 37, -0.9f, 0.05f};
    return quantize_with_min(job, job->importance ? &weighted : &plain, Q5_BYTES);
}

int64_t kquants_q6_K(const Job *job) {
    const int64_t blocks = job->rows * job->columns / BLOCK;
    uint8_t *out = job->out;
    int64_t sent = 0;
    Fit fit;
    for (int64_t done = 0; done < blocks; done++, out += Q6_BYTES) {
        const float *x = job->x + done * BLOCK, *importance = find_importance(job, done);
        if (job->lanes == 16)
            fit_symmetric_16(x, importance, 0, &fit);
        else
            for (int lane = 0; lane < SUBS6; lane += 8) fit_symmetric_8(x, importance, lane, &fit);
        if (!are_finite(x) || !finish_q6(x, &fit, out)) {
            send_upstream(job, done, out);
            sent++;
        }
    }
    return sent;
}

int64_t kquants_iq4_xs(const Job *job) {
    const int64_t blocks = job->rows * job->columns / BLOCK;
    uint8_t *out = job->out;
    int64_t sent = 0;
    Curve curve;
    Fit fit;
    make_curve(&curve);
    for (int64_t done = 0; done < blocks;) {
        const int count = job->lanes == 16 && blocks - done > 1 ? 2 : 1;
        fit_curves(job, done, count, &curve, &fit);
        for (int b = 0; b < count; b++, done++, out += IQ4_BYTES) {
            const float *x = job->x + done * BLOCK;
            /* Beyond 2^59 the sum of their squares may overflow here and not in ggml. */
            if (are_below(x, (127 + 59) << 23) && finish_iq4(x, fit.scale + b * SUBS, &curve, out))
                continue;
            send_upstream(job, done, out);
            sent++;
        }
    }
    return sent;
}

/* ggml pays no attention to importance here. */
int64_t kquants_q8_0(const Job *job) {
    const int64_t blocks = job->rows * job->columns / SUB;
    uint8_t *out = job->out;
    int64_t sent = 0;
    for (int64_t done = 0; done < blocks; done++, out += Q8_BYTES) {
        const float *x = job->x + done * SUB;
        if (make_q8(x, out)) continue;
        job->upstream(x, out, 1, SUB, NULL);
        sent++;
    }
    return sent;
}
