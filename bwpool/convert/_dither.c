/* Error diffusion of 8-bit gray rows, in two ways.
 *
 * Floyd-Steinberg, bit for bit as Pillow's convert("1") does it. With e(x, y) the error of a pixel and "/" truncating as in C:
 *
 *     n    = 7 e(x-1, y) + 3 e(x+1, y-1) + 5 e(x, y-1) + e(x-1, y-1)
 *     v    = clip(gray(x, y) + n / 16, 0, 255)
 *     out  = v > 128 ? 255 : 0
 *     e    = v - out
 *
 * Outside the picture e = 0.  Hence e is in [-126, 128] and |n| <= 16 * 128.
 *
 * Faithful: the weights are those of D. Burkes (1988), and the threshold is modulated so
 * that the quantiser does not sharpen (T. Kite, B. Evans, A. Bovik, "Modeling and
 * quality assessment of halftoning by error diffusion", 2000): white where
 * u + L (v - 127.5) >= 127.5, with v the pixel, u the pixel with the errors diffused to
 * it, and L = -11/16.  The error is u less the output.  In integers, with errors in
 * eighths of a level:
 *
 *     n    = 4 e(x-1, y) + 2 e(x-2, y) + e(x-2, y-1) + 2 e(x-1, y-1) + 4 e(x, y-1)
 *            + 2 e(x+1, y-1) + e(x+2, y-1)
 *     out  = n + 40 v >= 5100 ? 255 : 0
 *     e    = 8 v + floor((n + 8) / 16) - 8 out
 *
 * Outside the picture e = 0.  Hence |e| <= 1721 and |n| <= 16 * 1721: where the pixel
 * becomes white, e >= 8 v + (5100 - 40 v) / 16 - 2040, at least -1721, and
 * e <= (n + 8) / 16; where it becomes black, the same with the signs exchanged.  All of
 * it fits into an int16, and nothing is ever clipped.
 *
 * Every pixel waits for its left neighbour, some ten operations one after another,
 * so a row alone leaves most of a core idle.  But a pixel needs nothing of the row
 * above beyond x+1, or x+2: rows that each lag the one above by a column more can
 * advance together.  The scalar kernel interleaves four rows, the AVX2 kernel has
 * sixteen in the lanes of a vector.
 *
 * Both work in place on a band of up to LANES rows copied to padded lines: the copy
 * costs a few per cent and lets the AVX2 kernel overrun both ends of a row freely.
 * The bottom row of a band is always in line 0, whatever the number of rows, so that
 * the AVX2 kernel finds its errors in the same lane.  Pixel x of line i is stored in
 * column x + lag * (LANES - 1 - i), so that pixels to be processed at the same time
 * share a column.
 *
 * Between bands, errors[x] holds what the last row passes down to pixel x of the next,
 * the part of n that has y-1 in it.  This is all the state there is, so a picture may be
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
    LAG = 3,              /* Floyd-Steinberg's; 2 would do, but 3 takes the shift between
                             lanes off the critical path, which saves a third of the
                             time */
    FAITHFUL_LAG = 4,     /* for the same reason one more than needed */
    REACH = LAG * LANES,  /* steps from the first row's pixel x until the last row has
                             what it passes down there */
    FAITHFUL_REACH = FAITHFUL_LAG * LANES,
    MARGIN = FAITHFUL_REACH, /* the longer of the two */
    TILE = 16,            /* columns transposed at a time, a vector of bytes */
    CACHE_LINE = 64,      /* bytes */
};

typedef struct diffuser {
    size_t width;
    size_t stride; /* bytes from line to line */
    int lag;       /* columns from a row to the one below, in lines */
    void (*diffuse)(const struct diffuser *, int rows);
    uint8_t *lines;  /* LANES of them */
    int16_t *errors; /* may be read and written from -MARGIN up to width + MARGIN + TILE,
                        but means something from 0 up to width only */
} diffuser;

/* Pixel 0 of a line. */
INLINE uint8_t *line(const diffuser *d, int i)
{
    return d->lines + (size_t)i * d->stride + d->lag * (LANES - 1 - i);
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

enum { FAITHFUL_SCALAR_LAG = 3 };

/* A row on its way: the errors of its last pixels, the last one first. */
typedef struct {
    int e1, e2, e3, e4, e5;
} history;

/* What pixel x-3 below gets. */
INLINE int passed(const history *h)
{
    return h->e1 + h->e5 + 2 * (h->e2 + h->e4 + 2 * h->e3);
}

/* Make a pixel black or white; return its error. */
INLINE int quantise_faithfully(uint8_t *pixel, int n)
{
    int v = *pixel;
    int white = -(n + 40 * v >= 5100);
    *pixel = (uint8_t)white;
    return 8 * v + ((n + 8) >> 4) - (white & 2040);
}

/* As `advance`. */
INLINE void advance_faithfully(const diffuser *d, history *row, int top, int rows,
                               ptrdiff_t t, ptrdiff_t end, int inside)
{
    const ptrdiff_t width = (ptrdiff_t)d->width;
    int16_t *errors = d->errors;
    uint8_t *pixels[SCALAR_ROWS];
    for (int r = 0; r < rows; r++)
        pixels[r] = line(d, top - r) - FAITHFUL_SCALAR_LAG * r;
    for (; t < end; t++) {
        errors[t - FAITHFUL_SCALAR_LAG * rows] = (int16_t)passed(&row[rows - 1]);
        for (int r = rows - 1; r >= 0; r--) {
            ptrdiff_t x = t - FAITHFUL_SCALAR_LAG * r;
            int above = r > 0 ? passed(&row[r - 1]) : errors[t];
            int e = 0;
            if (inside || (0 <= x && x < width))
                e = quantise_faithfully(pixels[r] + t,
                                        4 * row[r].e1 + (2 * row[r].e2 + above));
            row[r] = (history){e, row[r].e1, row[r].e2, row[r].e3, row[r].e4};
        }
    }
}

INLINE void diffuse_lines_faithfully(const diffuser *d, int top, int rows)
{
    history row[SCALAR_ROWS] = {{0, 0, 0, 0, 0}};
    ptrdiff_t width = (ptrdiff_t)d->width;
    ptrdiff_t lag = FAITHFUL_SCALAR_LAG;
    ptrdiff_t in = lag * (rows - 1); /* from here to width all rows are inside */
    advance_faithfully(d, row, top, rows, 0, in, 0);
    advance_faithfully(d, row, top, rows, in, width, 1);
    advance_faithfully(d, row, top, rows, in > width ? in : width, width + lag * rows,
                       0);
}

static void diffuse_faithfully_scalar(const diffuser *d, int rows)
{
    int top = rows - 1;
    for (; top >= 1; top -= 2)
        diffuse_lines_faithfully(d, top, 2);
    if (top == 0)
        diffuse_lines_faithfully(d, top, 1);
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

/* Read a tile, a matrix of LANES x TILE bytes, in columns. */
AVX2_INLINE void read_tile(__m256i v[8], const uint8_t *tile, size_t stride)
{
    for (int j = 0; j < 8; j++)
        v[j] = load_pair(tile + (size_t)j * stride, tile + (size_t)(j + 8) * stride);
    turn(v);
    turn(v);
    turn(v);
}

/* Make each column of a tile a vector of biased pixels. */
AVX2_INLINE void load_tile(const uint8_t *tile, size_t stride, int16_t column[][LANES])
{
    __m256i v[8];
    read_tile(v, tile, stride);
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

/* Make each column of a tile two vectors: 8 v - 2040, the error of a white pixel that
 * gets none, and 5108 - 40 v, the least n + 8 that makes a pixel white. */
AVX2_INLINE void load_tile_faithfully(const uint8_t *tile, size_t stride,
                                      int16_t error[][LANES], int16_t least[][LANES])
{
    __m256i v[8];
    read_tile(v, tile, stride);
    /* A byte beside one of 255, multiplied in pairs and added. */
    const __m256i ones = _mm256_set1_epi8(-1);
    const __m256i to_error = _mm256_set1_epi16((short)(-8 * 256 + 8));
    const __m256i to_least = _mm256_set1_epi16((short)(20 * 256 + (256 - 40)));
    const __m256i round = _mm256_set1_epi16(8);
    for (int k = 0; k < TILE; k++) {
        __m256i pairs = k % 2 ? _mm256_unpackhi_epi8(v[k / 2], ones)
                              : _mm256_unpacklo_epi8(v[k / 2], ones);
        _mm256_store_si256((__m256i *)error[k], _mm256_maddubs_epi16(pairs, to_error));
        _mm256_store_si256(
            (__m256i *)least[k],
            _mm256_add_epi16(_mm256_maddubs_epi16(pairs, to_least), round));
    }
}

/* The errors of the last pixels of every row, the last one first. */
typedef struct {
    __m256i e1, e2, e3, e4, e5, e6;
} histories;

/* What each row passes down for the x at which the row below, FAITHFUL_LAG columns
 * behind, is now. */
AVX2_INLINE __m256i passed_down_faithfully(const histories *s)
{
    __m256i twice = _mm256_add_epi16(_mm256_add_epi16(s->e3, s->e5),
                                     _mm256_slli_epi16(s->e4, 1));
    return _mm256_add_epi16(_mm256_add_epi16(s->e2, s->e6),
                            _mm256_slli_epi16(twice, 1));
}

/* Take the next pixel of every row, given what the row above passes down to it, the
 * errors of the lanes that are not `inside` being 0.  Return the mask of the black ones.
 *
 * The five operations from s->e1 to the new one are what a step costs. */
AVX2_INLINE __m256i step_faithfully(histories *s, __m256i error, __m256i least,
                                    __m256i above, __m256i inside)
{
    const __m256i round = _mm256_set1_epi16(8);
    const __m256i white = _mm256_set1_epi16(2040);
    __m256i known = _mm256_add_epi16(_mm256_slli_epi16(s->e2, 1),
                                     _mm256_add_epi16(above, round));
    /* Nothing saturates: it is there to keep the compiler from reordering the sum. */
    __m256i n = _mm256_adds_epi16(_mm256_slli_epi16(s->e1, 2), known);
    __m256i black = _mm256_cmpgt_epi16(least, n);
    __m256i e = _mm256_adds_epi16(_mm256_add_epi16(error, _mm256_srai_epi16(n, 4)),
                                  _mm256_and_si256(black, white));
    *s = (histories){_mm256_and_si256(e, inside), s->e1, s->e2, s->e3, s->e4, s->e5};
    return black;
}

/* The lanes of step t that are inside the picture: lane i is at
 * x = t - FAITHFUL_LAG * (15 - i).  Far from an end, nothing but that it is far counts,
 * so that an int16 holds what is compared. */
AVX2_INLINE __m256i inside_at(ptrdiff_t t, ptrdiff_t width)
{
    const __m256i lane =
        _mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m256i behind = _mm256_slli_epi16(
        _mm256_sub_epi16(_mm256_set1_epi16(LANES - 1), lane), 2);
    const ptrdiff_t far = 2 * FAITHFUL_REACH;
    ptrdiff_t begun = t + 1 < far ? t + 1 : far;
    ptrdiff_t left = width - t < far ? width - t : far;
    __m256i has_begun = _mm256_cmpgt_epi16(_mm256_set1_epi16((short)begun), behind);
    __m256i has_ended = _mm256_cmpgt_epi16(_mm256_set1_epi16((short)(1 - left)), behind);
    return _mm256_andnot_si256(has_ended, has_begun);
}

/* The columns of a tile, the first of them at step t. */
AVX2_INLINE void diffuse_tile_faithfully(const diffuser *d, histories *s, ptrdiff_t t,
                                         ptrdiff_t start, __m256i top, int at_an_end)
{
    int16_t error[TILE][LANES] __attribute__((aligned(32)));
    int16_t least[TILE][LANES] __attribute__((aligned(32)));
    __m256i white[TILE];
    const __m256i all = _mm256_set1_epi16(-1);
    const ptrdiff_t width = (ptrdiff_t)d->width;
    uint8_t *tile = d->lines + t;
    load_tile_faithfully(tile, d->stride, error, least);
    for (int k = 0; k < TILE; k++, t++) {
        __m256i down = passed_down_faithfully(s);
        /* As in diffuse_avx2. */
        __m256i upper = _mm256_permute2x128_si256(down, down, 0x21);
        __m256i above = _mm256_alignr_epi8(upper, down, sizeof(int16_t));
        __m256i first = _mm256_set1_epi16(d->errors[t - start]);
        d->errors[t - FAITHFUL_REACH] = (int16_t)_mm256_extract_epi16(down, 0);
        above = _mm256_blendv_epi8(above, first, top);
        __m256i black =
            step_faithfully(s, _mm256_load_si256((const __m256i *)error[k]),
                            _mm256_load_si256((const __m256i *)least[k]), above,
                            at_an_end ? inside_at(t, width) : all);
        white[k] = _mm256_xor_si256(black, all);
    }
    store_tile(tile, d->stride, white);
}

AVX2 static void diffuse_faithfully_avx2(const diffuser *d, int rows)
{
    if (rows < 3) {
        diffuse_faithfully_scalar(d, rows);
        return;
    }
    const ptrdiff_t width = (ptrdiff_t)d->width;
    const ptrdiff_t start = FAITHFUL_LAG * (LANES - rows); /* of the first row */
    const __m256i lane =
        _mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m256i top = _mm256_cmpeq_epi16(lane, _mm256_set1_epi16((short)(rows - 1)));
    const __m256i zero = _mm256_setzero_si256();
    histories s = {zero, zero, zero, zero, zero, zero};

    for (ptrdiff_t t = start & -TILE; t < width + FAITHFUL_REACH; t += TILE)
        if (t < FAITHFUL_REACH || t + TILE > width)
            diffuse_tile_faithfully(d, &s, t, start, top, 1);
        else
            diffuse_tile_faithfully(d, &s, t, start, top, 0);
}

static int have_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") != 0;
}

#else

static int have_avx2(void) { return 0; }
#define diffuse_avx2 diffuse_scalar
#define diffuse_faithfully_avx2 diffuse_faithfully_scalar

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

/* A diffuser for rows of `width` pixels, the first of them at the top of a picture,
 * still without a kernel; NULL if the width is 0 or there is no memory for it. */
static diffuser *new_diffuser(size_t width, int lag)
{
    if (width == 0 || width > SIZE_MAX / 64) /* so that no size below overflows */
        return NULL;
    /* A line has room for the last tile, which begins before width + MARGIN.  It is an
       odd number of cache lines long: were it a power of two, the lines would compete
       for a few sets of the cache. */
    size_t stride = (((width + MARGIN + TILE) / CACHE_LINE + 1) | 1) * CACHE_LINE;
    size_t header = (sizeof(diffuser) / CACHE_LINE + 1) * CACHE_LINE;
    size_t errors = MARGIN + width + MARGIN + TILE;
    diffuser *d = calloc(1, header + LANES * stride + errors * sizeof(int16_t));
    if (d == NULL)
        return NULL;
    d->width = width;
    d->stride = stride;
    d->lag = lag;
    d->lines = (uint8_t *)d + header;
    d->errors = (int16_t *)(d->lines + LANES * stride) + MARGIN;
    return d;
}

static diffuser *diffuser_new(size_t width, int avx2)
{
    diffuser *d = new_diffuser(width, LAG);
    if (d != NULL)
        d->diffuse = avx2 && have_avx2() ? diffuse_avx2 : diffuse_scalar;
    return d;
}

static diffuser *diffuser_new_faithful(size_t width, int avx2)
{
    diffuser *d = new_diffuser(width, FAITHFUL_LAG);
    if (d != NULL)
        d->diffuse = avx2 && have_avx2() ? diffuse_faithfully_avx2
                                         : diffuse_faithfully_scalar;
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
