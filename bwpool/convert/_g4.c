/* CCITT Group 4 (ITU-T T.6) encoding of rows of bits, as TIFF wants it.
 *
 * Rows come as PNG has them: eight pixels to a byte, the leftmost on top, 1 for white.
 * A row is coded by where its colour changes, relative to where that of the row above
 * does. Both are kept as lists of positions, found a word of 64 pixels at a time, which
 * is what makes this several times faster than going through the bits.
 *
 * Every list ends with the width, four times, so that looking ahead needs no checks.
 */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    WHITE = 0,
    BLACK = 1,
    SENTINELS = 4,
    LONGEST_RUN_CODE = 2560, /* longer runs repeat it */
    REACH = 3,               /* of the vertical mode, in pixels */
};

struct code {
    uint16_t bits;
    uint8_t length;
};

/* Codes for runs of 0 to 63, and for multiples of 64 from 64 on. */

static const struct code white_ends[64] = {
    {0x35, 8}, {0x7, 6}, {0x7, 4}, {0x8, 4}, {0xb, 4}, {0xc, 4}, {0xe, 4}, {0xf, 4},
    {0x13, 5}, {0x14, 5}, {0x7, 5}, {0x8, 5}, {0x8, 6}, {0x3, 6}, {0x34, 6}, {0x35, 6},
    {0x2a, 6}, {0x2b, 6}, {0x27, 7}, {0xc, 7}, {0x8, 7}, {0x17, 7}, {0x3, 7}, {0x4, 7},
    {0x28, 7}, {0x2b, 7}, {0x13, 7}, {0x24, 7}, {0x18, 7}, {0x2, 8}, {0x3, 8},
    {0x1a, 8}, {0x1b, 8}, {0x12, 8}, {0x13, 8}, {0x14, 8}, {0x15, 8}, {0x16, 8},
    {0x17, 8}, {0x28, 8}, {0x29, 8}, {0x2a, 8}, {0x2b, 8}, {0x2c, 8}, {0x2d, 8},
    {0x4, 8}, {0x5, 8}, {0xa, 8}, {0xb, 8}, {0x52, 8}, {0x53, 8}, {0x54, 8}, {0x55, 8},
    {0x24, 8}, {0x25, 8}, {0x58, 8}, {0x59, 8}, {0x5a, 8}, {0x5b, 8}, {0x4a, 8},
    {0x4b, 8}, {0x32, 8}, {0x33, 8}, {0x34, 8},
};

static const struct code black_ends[64] = {
    {0x37, 10}, {0x2, 3}, {0x3, 2}, {0x2, 2}, {0x3, 3}, {0x3, 4}, {0x2, 4}, {0x3, 5},
    {0x5, 6}, {0x4, 6}, {0x4, 7}, {0x5, 7}, {0x7, 7}, {0x4, 8}, {0x7, 8}, {0x18, 9},
    {0x17, 10}, {0x18, 10}, {0x8, 10}, {0x67, 11}, {0x68, 11}, {0x6c, 11}, {0x37, 11},
    {0x28, 11}, {0x17, 11}, {0x18, 11}, {0xca, 12}, {0xcb, 12}, {0xcc, 12}, {0xcd, 12},
    {0x68, 12}, {0x69, 12}, {0x6a, 12}, {0x6b, 12}, {0xd2, 12}, {0xd3, 12}, {0xd4, 12},
    {0xd5, 12}, {0xd6, 12}, {0xd7, 12}, {0x6c, 12}, {0x6d, 12}, {0xda, 12}, {0xdb, 12},
    {0x54, 12}, {0x55, 12}, {0x56, 12}, {0x57, 12}, {0x64, 12}, {0x65, 12}, {0x52, 12},
    {0x53, 12}, {0x24, 12}, {0x37, 12}, {0x38, 12}, {0x27, 12}, {0x28, 12}, {0x58, 12},
    {0x59, 12}, {0x2b, 12}, {0x2c, 12}, {0x5a, 12}, {0x66, 12}, {0x67, 12},
};

static const struct code white_64s[40] = {
    {0x1b, 5}, {0x12, 5}, {0x17, 6}, {0x37, 7}, {0x36, 8}, {0x37, 8}, {0x64, 8},
    {0x65, 8}, {0x68, 8}, {0x67, 8}, {0xcc, 9}, {0xcd, 9}, {0xd2, 9}, {0xd3, 9},
    {0xd4, 9}, {0xd5, 9}, {0xd6, 9}, {0xd7, 9}, {0xd8, 9}, {0xd9, 9}, {0xda, 9},
    {0xdb, 9}, {0x98, 9}, {0x99, 9}, {0x9a, 9}, {0x18, 6}, {0x9b, 9}, {0x8, 11},
    {0xc, 11}, {0xd, 11}, {0x12, 12}, {0x13, 12}, {0x14, 12}, {0x15, 12}, {0x16, 12},
    {0x17, 12}, {0x1c, 12}, {0x1d, 12}, {0x1e, 12}, {0x1f, 12},
};

static const struct code black_64s[40] = {
    {0xf, 10}, {0xc8, 12}, {0xc9, 12}, {0x5b, 12}, {0x33, 12}, {0x34, 12}, {0x35, 12},
    {0x6c, 13}, {0x6d, 13}, {0x4a, 13}, {0x4b, 13}, {0x4c, 13}, {0x4d, 13}, {0x72, 13},
    {0x73, 13}, {0x74, 13}, {0x75, 13}, {0x76, 13}, {0x77, 13}, {0x52, 13}, {0x53, 13},
    {0x54, 13}, {0x55, 13}, {0x5a, 13}, {0x5b, 13}, {0x64, 13}, {0x65, 13}, {0x8, 11},
    {0xc, 11}, {0xd, 11}, {0x12, 12}, {0x13, 12}, {0x14, 12}, {0x15, 12}, {0x16, 12},
    {0x17, 12}, {0x1c, 12}, {0x1d, 12}, {0x1e, 12}, {0x1f, 12},
};

static const struct code *const ends[2] = {white_ends, black_ends};
static const struct code *const multiples[2] = {white_64s, black_64s};

/* By how far the change lies to the right of that above, from -3 to 3. */
static const struct code vertical[2 * REACH + 1] = {
    {0x2, 7}, {0x2, 6}, {0x2, 3}, {0x1, 1}, {0x3, 3}, {0x3, 6}, {0x3, 7},
};
static const struct code pass = {0x1, 4};
static const struct code horizontal = {0x1, 3};
static const struct code end_of_line = {0x1, 12}; /* twice: the end of the strip */

struct writer {
    uint8_t *to;
    uint64_t bits; /* those not yet written are the lowest `count` */
    int count;     /* less than 32 between calls */
};

static inline void put(struct writer *w, struct code code)
{
    w->bits = w->bits << code.length | code.bits;
    w->count += code.length;
    if (w->count >= 32) {
        uint32_t word = (uint32_t)(w->bits >> (w->count -= 32));
        *w->to++ = (uint8_t)(word >> 24);
        *w->to++ = (uint8_t)(word >> 16);
        *w->to++ = (uint8_t)(word >> 8);
        *w->to++ = (uint8_t)word;
    }
}

static uint8_t *finish(struct writer *w)
{
    put(w, end_of_line);
    put(w, end_of_line);
    for (; w->count > 0; w->count -= 8) {
        uint64_t rest = w->count >= 8 ? w->bits >> (w->count - 8)
                                      : w->bits << (8 - w->count);
        *w->to++ = (uint8_t)rest;
    }
    return w->to;
}

static inline void put_run(struct writer *w, uint32_t run, int colour)
{
    for (; run >= LONGEST_RUN_CODE + 64; run -= LONGEST_RUN_CODE)
        put(w, multiples[colour][LONGEST_RUN_CODE / 64 - 1]);
    if (run >= 64) {
        put(w, multiples[colour][run / 64 - 1]);
        run %= 64;
    }
    put(w, ends[colour][run]);
}

static inline int leading_zeros(uint64_t word)
{
#if defined(__GNUC__)
    return __builtin_clzll(word);
#else
    int zeros = 0;
    for (; !(word >> 63); word <<= 1)
        zeros++;
    return zeros;
#endif
}

/* Lists where the row changes its colour, beginning with white. */
static void find_changes(const uint8_t *row, uint32_t width, uint32_t *changes)
{
    uint64_t last = 1; /* the pixel before is white */
    for (uint32_t at = 0; at < width; at += 64) {
        uint32_t bytes = (width - at + 7) / 8;
        uint64_t word = 0;
        for (uint32_t i = 0; i < 8; i++)
            word = word << 8 | (i < bytes ? row[at / 8 + i] : 0);
        uint64_t changed = word ^ (word >> 1 | last << 63);
        last = word & 1;
        if (width - at < 64)
            changed &= ~(UINT64_MAX >> (width - at));
        while (changed) {
            int zeros = leading_zeros(changed);
            *changes++ = at + (uint32_t)zeros;
            changed &= ~(1ull << 63 >> zeros);
        }
    }
    for (int i = 0; i < SENTINELS; i++)
        *changes++ = width;
}

/* Codes a row, given its changes and those of the row above. */
static void encode_row(
    struct writer *w, const uint32_t *row, const uint32_t *above, uint32_t width)
{
    int64_t at = -1; /* everything up to here is coded; -1 before the first pixel */
    int colour = WHITE;
    size_t i = 0; /* row[i] is the next change */
    size_t j = 0; /* above[j] is the next change above to the other colour */
    while (at < (int64_t)width) {
        while ((int64_t)above[j] <= at && above[j] < width)
            j += 2;
        int64_t distance = (int64_t)row[i] - above[j];
        if (above[j + 1] < row[i]) {
            put(w, pass);
            at = above[j + 1];
        } else if (distance >= -REACH && distance <= REACH) {
            put(w, vertical[distance + REACH]);
            at = row[i++];
            colour = !colour;
            /* The change before may lie ahead again, when this one was to the left. */
            j = j ? j - 1 : j + 1;
        } else {
            uint32_t from = at < 0 ? 0 : (uint32_t)at;
            put(w, horizontal);
            put_run(w, row[i] - from, colour);
            put_run(w, row[i + 1] - row[i], !colour);
            at = row[i + 1];
            i += at < (int64_t)width ? 2 : 0;
        }
    }
}

/* Returns how many bytes were written, 0 when there was no memory. `out` must have room
 * for `g4_bound(width, rows)` bytes. */
size_t g4_encode(const uint8_t *bits, uint32_t width, size_t rows, uint8_t *out)
{
    size_t length = (size_t)width + SENTINELS;
    uint32_t *lists = malloc(2 * length * sizeof *lists);
    if (lists == NULL)
        return 0;
    uint32_t *above = lists, *row = lists + length;
    for (int i = 0; i < SENTINELS; i++)
        above[i] = width; /* the first row lies under a white one */
    struct writer w = {out, 0, 0};
    for (size_t y = 0; y < rows; y++) {
        find_changes(bits + y * (((size_t)width + 7) / 8), width, row);
        encode_row(&w, row, above, width);
        uint32_t *other = above;
        above = row;
        row = other;
    }
    free(lists);
    return (size_t)(finish(&w) - out);
}

/* No pixel takes more than seven bits, but a run code more at the end of a row. */
size_t g4_bound(uint32_t width, size_t rows)
{
    return ((size_t)width + 64) * rows + 64;
}
