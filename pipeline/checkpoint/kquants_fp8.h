/* Rows of FP8 -> rows of BF16: each code times its scale in float32, rounded once to nearest even.
 *
 * FP16 holds each E5M2 as it is and each E4M3 divided by 256; the CPU's own conversion of FP16 is
 * exact, and so is what takes E4M3 back to size. A NaN stays a NaN.
 */

enum { CODES = 16 };

/* Rows `first` and those after it of a weight. One scale for each block_rows x block_columns of it,
 * scale_columns of them beside one another. */
typedef struct {
    const uint8_t *codes;
    uint16_t *out;
    int64_t rows, columns, first;
    const float *scales;
    int64_t scale_columns, block_rows, block_columns;
    int32_t is_e5m2;
} Fp8Job;

static inline __m256i make_halves(__m128i codes, bool is_e5m2) {
    const __m256i wide = _mm256_cvtepu8_epi16(codes), high = _mm256_slli_epi16(wide, 8);
    if (is_e5m2) return high;
    const __m256i sign = _mm256_and_si256(high, _mm256_set1_epi16((short)0x8000));
    const __m256i size = _mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x7f)), 7);
    /* E4M3 has no infinity, and one NaN of either sign. */
    const __m256i is_nan = _mm256_cmpeq_epi16(size, _mm256_set1_epi16(0x7f << 7));
    const __m256i nan = _mm256_and_si256(is_nan, _mm256_set1_epi16(0x7e00));
    return _mm256_or_si256(_mm256_or_si256(size, nan), sign);
}

static inline __m256i scale_halves(__m128i halves, __m256 unit, __m256 scale) {
    const __m256 values = _mm256_mul_ps(_mm256_cvtph_ps(halves), unit);
    const __m256i bits = _mm256_castps_si256(_mm256_mul_ps(values, scale));
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    return _mm256_srli_epi32(_mm256_add_epi32(bits, half), 16);
}

static inline void scale_codes(const uint8_t *codes, uint16_t *out, float scale, bool is_e5m2) {
    const __m256 unit = _mm256_set1_ps(is_e5m2 ? 1.f : 256.f), scales = _mm256_set1_ps(scale);
    const __m256i halves = make_halves(_mm_loadu_si128((const __m128i *)codes), is_e5m2);
    const __m256i low = scale_halves(_mm256_castsi256_si128(halves), unit, scales);
    const __m256i high = scale_halves(_mm256_extracti128_si256(halves, 1), unit, scales);
    /* Packing interleaves the quarters of the two. */
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
    _mm256_storeu_si256((__m256i *)out, packed);
}

static inline void scale_run(const uint8_t *codes, uint16_t *out, int64_t count, float scale,
                             bool is_e5m2) {
    int64_t done = 0;
    for (; done + CODES <= count; done += CODES)
        scale_codes(codes + done, out + done, scale, is_e5m2);
    if (done == count) return;
    uint8_t last[CODES] = {0};
    uint16_t made[CODES];
    memcpy(last, codes + done, count - done);
    scale_codes(last, made, scale, is_e5m2);
    memcpy(out + done, made, (count - done) * sizeof *made);
}

void kquants_fp8(const Fp8Job *job) {
    const int64_t columns = job->columns, width = job->block_columns;
    for (int64_t row = 0; row < job->rows; row++) {
        const uint8_t *codes = job->codes + row * columns;
        uint16_t *out = job->out + row * columns;
        const float *scale =
            job->scales + (job->first + row) / job->block_rows * job->scale_columns;
        for (int64_t start = 0; start < columns; start += width, scale++) {
            const int64_t count = columns - start < width ? columns - start : width;
            if (job->is_e5m2)
                scale_run(codes + start, out + start, count, *scale, true);
            else
                scale_run(codes + start, out + start, count, *scale, false);
        }
    }
}
