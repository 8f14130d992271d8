#include "blake2s.h"

#include <string.h>

static const uint32_t IV[8] = {
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
};

/* RFC 7693, 2.7. */
static const uint8_t SIGMA[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

static inline uint32_t little32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static inline uint32_t turned(uint32_t word, unsigned by)
{
    return word >> by | word << (32 - by);
}

#define MIX(a, b, c, d, x, y)       \
    do {                            \
        a += b + (x);               \
        d = turned(d ^ a, 16);      \
        c += d;                     \
        b = turned(b ^ c, 12);      \
        a += b + (y);               \
        d = turned(d ^ a, 8);       \
        c += d;                     \
        b = turned(b ^ c, 7);       \
    } while (0)

static void compress(uint32_t h[8], const uint8_t block[BLAKE2S_BLOCK], uint64_t taken, uint32_t last)
{
    uint32_t m[16], v[16];
    for (int word = 0; word < 16; word++)
        m[word] = little32(block + word * 4);
    for (int word = 0; word < 8; word++) {
        v[word] = h[word];
        v[word + 8] = IV[word];
    }
    v[12] ^= (uint32_t)taken;
    v[13] ^= (uint32_t)(taken >> 32);
    v[14] ^= last;
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        const uint8_t *s = SIGMA[round];
        MIX(v[0], v[4], v[8], v[12], m[s[0]], m[s[1]]);
        MIX(v[1], v[5], v[9], v[13], m[s[2]], m[s[3]]);
        MIX(v[2], v[6], v[10], v[14], m[s[4]], m[s[5]]);
        MIX(v[3], v[7], v[11], v[15], m[s[6]], m[s[7]]);
        MIX(v[0], v[5], v[10], v[15], m[s[8]], m[s[9]]);
        MIX(v[1], v[6], v[11], v[12], m[s[10]], m[s[11]]);
        MIX(v[2], v[7], v[8], v[13], m[s[12]], m[s[13]]);
        MIX(v[3], v[4], v[9], v[14], m[s[14]], m[s[15]]);
    }
    for (int word = 0; word < 8; word++)
        h[word] ^= v[word] ^ v[word + 8];
}

void blake2s_begin(struct blake2s_key *begun, const uint8_t key[BLAKE2S_KEY], const uint8_t person[BLAKE2S_PERSON])
{
    uint8_t block[BLAKE2S_BLOCK] = {0};
    memcpy(begun->h, IV, sizeof IV);
    begun->h[0] ^= BLAKE2S_TAG | BLAKE2S_KEY << 8 | 1 << 16 | 1 << 24; /* lengths of tag and key, fanout 1, depth 1 */
    begun->h[6] ^= little32(person);
    begun->h[7] ^= little32(person + 4);
    memcpy(block, key, BLAKE2S_KEY);
    compress(begun->h, block, BLAKE2S_BLOCK, 0);
}

void blake2s_tag(const struct blake2s_key *begun, const uint8_t *data, size_t size, uint8_t tag[BLAKE2S_TAG])
{
    uint32_t h[8];
    uint64_t taken = BLAKE2S_BLOCK;
    uint8_t block[BLAKE2S_BLOCK] = {0};
    memcpy(h, begun->h, sizeof h);
    while (size > BLAKE2S_BLOCK) {
        taken += BLAKE2S_BLOCK;
        compress(h, data, taken, 0);
        data += BLAKE2S_BLOCK;
        size -= BLAKE2S_BLOCK;
    }
    memcpy(block, data, size);
    compress(h, block, taken + size, UINT32_MAX);
    for (int byte = 0; byte < BLAKE2S_TAG; byte++)
        tag[byte] = (uint8_t)(h[byte / 4] >> (byte % 4) * 8);
}
