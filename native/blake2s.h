/* Keyed BLAKE2s with a personalization (RFC 7693): the tags of records. No memory but the caller's. */
#ifndef OUTLIVE_BLAKE2S_H
#define OUTLIVE_BLAKE2S_H

#include <stddef.h>
#include <stdint.h>

enum { BLAKE2S_BLOCK = 64, BLAKE2S_KEY = 32, BLAKE2S_PERSON = 8, BLAKE2S_TAG = 16 };

/* A hash that has taken in the key's block and nothing else: what all tags of one key and use begin from. */
struct blake2s_key {
    uint32_t h[8];
};

void blake2s_begin(struct blake2s_key *begun, const uint8_t key[BLAKE2S_KEY], const uint8_t person[BLAKE2S_PERSON]);

/* The tag of `data`, which must not be empty. */
void blake2s_tag(const struct blake2s_key *begun, const uint8_t *data, size_t size, uint8_t tag[BLAKE2S_TAG]);

#endif
