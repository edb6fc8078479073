/* Floyd-Steinberg error diffusion of 8-bit gray rows, bit for bit as Pillow's
 * convert("1") does it.
 *
 * With e(x, y) the error of a pixel and "/" truncating as in C:
 *
 *     n    = 7 e(x-1, y) + 3 e(x+1, y-1) + 5 e(x, y-1) + e(x-1, y-1)
 *     v    = clip(gray(x, y) + n / 16, 0, 255)
 *     out  = v > 128 ? 255 : 0
 *     e    = v - out
 *
 * Outside the picture e = 0.  Hence e is in [-126, 128] and |n| <= 16 * 128.
 *
 * Every pixel waits for its left neighbour, some ten operations one after another,
 * so a row alone leaves most of a core idle.  But a pixel needs nothing of the row
 * above beyond x+1: rows that each lag the one above by two columns or more can
 * advance together.  The scalar kernel interleaves four rows, the AVX2 kernel has
 * sixteen in the lanes of a vector.
 *
 * Both work in place on a band of up to LANES rows copied to padded lines: the copy
 * costs a few per cent and lets the AVX2 kernel overrun both ends of a row freely.
 * The bottom row of a band is always in line 0, whatever the number of rows, so that
 * the AVX2 kernel finds its errors in the same lane.  Pixel x of line i is stored in
 * column x + LAG * (LANES - 1 - i), so that pixels to be processed at the same time
 * share a column.
 *
 * Between bands, errors[x] holds what the last row passes down to pixel x of the next:
 * 3 e(x+1) + 5 e(x) + e(x-1).  This is all the state there is, so a picture may be
 * cut anywhere.
 */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The target attribute and __builtin_cpu_supports are GNU C, that is GCC and Clang. */
#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_AVX2_KERNEL 1
#include <immintrin.h>
#else
#define HAVE_AVX2_KERNEL 0
#endif

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

enum {
    LANES = 16,           /* int16 lanes of an AVX2 vector */
    LAG = 3,              /* 2 would do, but 3 takes the shift between lanes off the
                             critical path, which saves a third of the time */
    REACH = LAG * LANES,  /* steps from the first row's pixel x until the last row has
                             what it passes down there */
    TILE = 16,            /* columns transposed at a time, a vector of bytes */
    CACHE_LINE = 64,      /* bytes */
};

typedef struct diffuser {
    size_t width;
    size_t stride; /* bytes from line to line */
    void (*diffuse)(const struct diffuser *, int rows);
    uint8_t *lines;  /* LANES of them */
    int16_t *errors; /* may be read and written from -REACH up to width + REACH + TILE,
                        but means something from 0 up to width only */
} diffuser;

/* Pixel 0 of a line. */
INLINE uint8_t *line(const diffuser *d, int i)
{
    return d->lines + (size_t)i * d->stride + LAG * (LANES - 1 - i);
}

/* ---- Scalar ---------------------------------------------------------------------- */

enum { SCALAR_ROWS = 4, SCALAR_LAG = 2 };

/* A row on its way: what its last pixels still have to pass on. */
typedef struct {
    int right; /* e(x-1) */
    int below; /* 5 e(x-1) + e(x-2), what pixel x-1 below is to get except for 3 e(x) */
    int ready; /* all that pixel x-2 below gets */
} trail;

INLINE trail after(trail old, int e)
{
    return (trail){e, 5 * e + old.right, 3 * e + old.below};
}

/* Make a pixel black or white; return its error. */
INLINE int quantise(uint8_t *pixel, int n)
{
    int v = *pixel + n / 16;
    v = v < 0 ? 0 : v;
    v = v > 255 ? 255 : v;
    int white = -(v > 128);
    *pixel = (uint8_t)white;
    return v - (white & 255);
}

/* Advance `rows` rows, line `top` and those below it, from step t to `end`; in step t
 * row r is at x = t - SCALAR_LAG * r.  Unless `inside`, x may be outside the row. */
INLINE void advance(const diffuser *d, trail *row, int top, int rows, ptrdiff_t t,
                    ptrdiff_t end, int inside)
{
    const ptrdiff_t width = (ptrdiff_t)d->width;
    int16_t *errors = d->errors;
    uint8_t *pixels[SCALAR_ROWS];
    for (int r = 0; r < rows; r++)
        pixels[r] = line(d, top - r) - SCALAR_LAG * r;
    for (; t < end; t++) {
        /* From the bottom up, for what the row above had ready before this step. */
        errors[t - SCALAR_LAG * rows] = (int16_t)row[rows - 1].ready;
        for (int r = rows - 1; r >= 0; r--) {
            ptrdiff_t x = t - SCALAR_LAG * r;
            int above = r > 0 ? row[r - 1].ready : errors[t];
            int e = 0;
            if (inside || (0 <= x && x < width))
                e = quantise(pixels[r] + t, 7 * row[r].right + above);
            row[r] = after(row[r], e);
        }
    }
}

INLINE void diffuse_lines(const diffuser *d, int top, int rows)
{
    trail row[SCALAR_ROWS] = {{0, 0, 0}};
    ptrdiff_t width = (ptrdiff_t)d->width;
    ptrdiff_t in = SCALAR_LAG * (rows - 1); /* from here to width all rows are inside */
    advance(d, row, top, rows, 0, in, 0);
    advance(d, row, top, rows, in, width, 1);
    advance(d, row, top, rows, in > width ? in : width, width + SCALAR_LAG * rows, 0);
}

static void diffuse_scalar(const diffuser *d, int rows)
{
    int top = rows - 1;
    /* The numbers of rows are constants, so that each gets unrolled code of its own. */
    for (; top >= 3; top -= 4)
        diffuse_lines(d, top, 4);
    for (; top >= 1; top -= 2)
        diffuse_lines(d, top, 2);
    if (top == 0)
        diffuse_lines(d, top, 1);
}

/* ---- AVX2 ------------------------------------------------------------------------ */

#if HAVE_AVX2_KERNEL

#define AVX2 __attribute__((target("avx2")))
#define AVX2_INLINE static inline __attribute__((target("avx2"), always_inline))

/* Pixels are processed as 16 * gray + BIAS, which makes int16 saturation the clip at
 * white: 16 * 255 + BIAS fits, 16 * 256 + BIAS does not.  That leaves sixteen values
 * for BIAS; this one is a product of two bytes, so that one multiply-add of the bytes
 * (gray, BIAS_U8) with (16, BIAS_I8) makes it all. */
enum {
    BIAS_U8 = 237,
    BIAS_I8 = 121,
    BIAS = BIAS_U8 * BIAS_I8,
    OUTSIDE = BIAS / 2, /* as a pixel: so dark that no n can lift it to black, e = 0 */
};

/* The two halves of a vector in places of their own. */
AVX2_INLINE __m256i load_pair(const uint8_t *low, const uint8_t *high)
{
    __m256i v = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)low));
    return _mm256_inserti128_si256(v, _mm_loadu_si128((const __m128i *)high), 1);
}

AVX2_INLINE void store_pair(uint8_t *low, uint8_t *high, __m256i v)
{
    _mm_storeu_si128((__m128i *)low, _mm256_castsi256_si128(v));
    _mm_storeu_si128((__m128i *)high, _mm256_extracti128_si256(v, 1));
}

/* With the rows of an 8 x 16 byte matrix in eight 16-byte vectors, a byte has a 7-bit
 * address: 3 bits of vector, 4 of position.  This rotates the address left by one
 * bit, in both 128-bit halves at once.  After three turns vector j has column 2j, then
 * column 2j + 1; after four more it has row j again.  Rows 0 to 7 of a tile are in the
 * low halves, 8 to 15 in the high ones, as the lanes of an int16 vector need them. */
AVX2_INLINE void turn(__m256i v[8])
{
    __m256i w[8];
    for (int j = 0; j < 4; j++) {
        w[2 * j] = _mm256_unpacklo_epi8(v[j], v[j + 4]);
        w[2 * j + 1] = _mm256_unpackhi_epi8(v[j], v[j + 4]);
    }
    for (int j = 0; j < 8; j++)
        v[j] = w[j];
}

/* Read a tile, a matrix of LANES x TILE bytes; make each of its columns a vector of
 * biased pixels. */
AVX2_INLINE void load_tile(const uint8_t *tile, size_t stride, int16_t column[][LANES])
{
    __m256i v[8];
    for (int j = 0; j < 8; j++)
        v[j] = load_pair(tile + (size_t)j * stride, tile + (size_t)(j + 8) * stride);
    turn(v);
    turn(v);
    turn(v);
    const __m256i bias = _mm256_set1_epi8((char)BIAS_U8);
    const __m256i scale = _mm256_set1_epi16(BIAS_I8 << 8 | 16);
    for (int j = 0; j < 8; j++) {
        __m256i even = _mm256_unpacklo_epi8(v[j], bias);
        __m256i odd = _mm256_unpackhi_epi8(v[j], bias);
        _mm256_store_si256((__m256i *)column[2 * j], _mm256_maddubs_epi16(even, scale));
        _mm256_store_si256((__m256i *)column[2 * j + 1],
                           _mm256_maddubs_epi16(odd, scale));
    }
}

/* Write a tile of which white[k] is column k, lanes of 0 or -1. */
AVX2_INLINE void store_tile(uint8_t *tile, size_t stride, const __m256i white[TILE])
{
    __m256i v[8];
    for (int j = 0; j < 8; j++)
        v[j] = _mm256_packs_epi16(white[2 * j], white[2 * j + 1]);
    turn(v);
    turn(v);
    turn(v);
    turn(v);
    for (int j = 0; j < 8; j++)
        store_pair(tile + (size_t)j * stride, tile + (size_t)(j + 8) * stride, v[j]);
}

/* Close both ends of each row: the pixels at x = -1 and x = width get no error, so
 * whatever is computed in the padding beyond them stays there. */
static void fence(int16_t column[][LANES], ptrdiff_t first, ptrdiff_t width)
{
    for (int i = 0; i < LANES; i++) {
        ptrdiff_t right = LAG * (LANES - 1 - i) + width - first;
        ptrdiff_t left = right - width - 1;
        if (0 <= left && left < TILE)
            column[left][i] = OUTSIDE;
        if (0 <= right && right < TILE)
            column[right][i] = OUTSIDE;
    }
}

/* The errors of the last pixels of every row, the last one first. */
typedef struct {
    __m256i e1, e2, e3, e4;
} trails;

/* What each row passes down: 3 e(x+1) + 5 e(x) + e(x-1) for the x at which the row
 * below, LAG columns behind, is now. */
AVX2_INLINE __m256i passed_down(const trails *s)
{
    __m256i e3x5 = _mm256_add_epi16(s->e3, _mm256_slli_epi16(s->e3, 2));
    __m256i e2x3 = _mm256_add_epi16(s->e2, _mm256_slli_epi16(s->e2, 1));
    /* Nothing saturates: it is there to keep the compiler from reordering the sum. */
    return _mm256_adds_epi16(_mm256_add_epi16(e3x5, s->e4), e2x3);
}

/* Take the next pixel of every row, given what the row above passes down to it.
 * Return the mask of the white ones.
 *
 * The seven operations from s->e1 to the new one are what a step costs. */
AVX2_INLINE __m256i step(trails *s, __m256i pixels, __m256i above)
{
    const __m256i bias = _mm256_set1_epi16(BIAS);
    const __m256i dark = _mm256_set1_epi16(BIAS + 16 * 128 + 15);
    /* 7 e = 8 e - e, the subtraction first, since `above` is known early.  Nothing
       saturates here either. */
    __m256i n = _mm256_adds_epi16(_mm256_slli_epi16(s->e1, 3),
                                  _mm256_sub_epi16(above, s->e1));
    /* 15 for a negative n, else 0: what makes a shift, which rounds down, truncate. */
    __m256i truncate = _mm256_srli_epi16(n, 12);
    __m256i v = _mm256_adds_epi16(_mm256_adds_epi16(pixels, n), truncate);
    __m256i white = _mm256_cmpgt_epi16(v, dark);
    /* The unsigned saturation is the clip at black. */
    __m256i clipped = _mm256_srli_epi16(_mm256_subs_epu16(v, bias), 4);
    __m256i e = _mm256_sub_epi16(clipped, _mm256_srli_epi16(white, 8));
    *s = (trails){e, s->e1, s->e2, s->e3};
    return white;
}

/* In step t lane i is at column t of line i, that is at x = t - LAG * (15 - i).  Lanes
 * above the top row run idle. */
AVX2 static void diffuse_avx2(const diffuser *d, int rows)
{
    if (rows < 3) { /* sixteen lanes take as long as two or three rows without them */
        diffuse_scalar(d, rows);
        return;
    }
    const ptrdiff_t width = (ptrdiff_t)d->width;
    const ptrdiff_t start = LAG * (LANES - rows); /* of the first row */
    const __m256i lane =
        _mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m256i top = _mm256_cmpeq_epi16(lane, _mm256_set1_epi16((short)(rows - 1)));
    const __m256i zero = _mm256_setzero_si256();
    trails s = {zero, zero, zero, zero};

    for (ptrdiff_t t = start & -TILE; t < width + REACH;) {
        int16_t column[TILE][LANES] __attribute__((aligned(32)));
        __m256i white[TILE];
        uint8_t *tile = d->lines + t;
        load_tile(tile, d->stride, column);
        if (t < REACH || t + TILE > width)
            fence(column, t, width);
        for (int k = 0; k < TILE; k++, t++) {
            __m256i down = passed_down(&s);
            /* Lane i gets what lane i + 1 passes, the top row what is in errors. */
            __m256i upper = _mm256_permute2x128_si256(down, down, 0x21);
            __m256i above = _mm256_alignr_epi8(upper, down, sizeof(int16_t));
            __m256i first = _mm256_set1_epi16(d->errors[t - start]);
            d->errors[t - REACH] = (int16_t)_mm256_extract_epi16(down, 0);
            above = _mm256_blendv_epi8(above, first, top);
            __m256i pixels = _mm256_load_si256((const __m256i *)column[k]);
            white[k] = step(&s, pixels, above);
        }
        store_tile(tile, d->stride, white);
    }
}

static int have_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") != 0;
}

#else

static int have_avx2(void) { return 0; }
#define diffuse_avx2 diffuse_scalar

#endif

/* ---- Any number of rows ---------------------------------------------------------- */

/* Pack bytes of 0 or 255 into bits, the first the most significant. */
static void pack(uint8_t *out, const uint8_t *pixels, size_t width)
{
    for (; width >= 8; width -= 8, pixels += 8) {
        unsigned bits = 0;
        for (int i = 0; i < 8; i++)
            bits |= pixels[i] & (0x80u >> i);
        *out++ = (uint8_t)bits;
    }
    if (width > 0) {
        *out = 0;
        for (size_t i = 0; i < width; i++)
            *out |= (uint8_t)(pixels[i] & (0x80u >> i));
    }
}

/* A diffuser for rows of `width` pixels, the first of them at the top of a picture;
 * NULL if the width is 0 or there is no memory for it. */
static diffuser *diffuser_new(size_t width, int avx2)
{
    if (width == 0 || width > SIZE_MAX / 64) /* so that no size below overflows */
        return NULL;
    /* A line has room for the last tile, which begins before width + REACH.  It is an
       odd number of cache lines long: were it a power of two, the lines would compete
       for a few sets of the cache. */
    size_t stride = (((width + REACH + TILE) / CACHE_LINE + 1) | 1) * CACHE_LINE;
    size_t header = (sizeof(diffuser) / CACHE_LINE + 1) * CACHE_LINE;
    size_t errors = REACH + width + REACH + TILE;
    diffuser *d = calloc(1, header + LANES * stride + errors * sizeof(int16_t));
    if (d == NULL)
        return NULL;
    d->width = width;
    d->stride = stride;
    d->diffuse = avx2 && have_avx2() ? diffuse_avx2 : diffuse_scalar;
    d->lines = (uint8_t *)d + header;
    d->errors = (int16_t *)(d->lines + LANES * stride) + REACH;
    return d;
}

static void diffuser_free(diffuser *d) { free(d); }

/* Diffuse the next rows of a picture.  `out` may be `gray`, since a band is read before
 * it is written, and its rows are no longer than those of `gray`. */
static void diffuser_feed(diffuser *d, const uint8_t *gray, size_t stride, size_t rows,
                          uint8_t *out, int packed)
{
    size_t width = d->width;
    size_t row_bytes = packed ? (width + 7) / 8 : width;
    while (rows > 0) {
        int band = rows < LANES ? (int)rows : LANES;
        for (int i = band - 1; i >= 0; i--, gray += stride)
            memcpy(line(d, i), gray, width);
        d->diffuse(d, band);
        for (int i = band - 1; i >= 0; i--, out += row_bytes)
            if (packed)
                pack(out, line(d, i), width);
            else
                memcpy(out, line(d, i), width);
        rows -= (size_t)band;
    }
}
