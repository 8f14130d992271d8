#include "crc32c.h"

#include <stdbool.h>
#include <string.h>

enum { SLICES = 8 };

static uint32_t tables[SLICES][256];
static bool has_instruction;

/* Before anyone can call: the tables are never written again, so threads need no lock. */
__attribute__((constructor)) static void tables_make(void)
{
    const uint32_t polynomial = 0x82f63b78;

    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t value = byte;
        for (int bit = 0; bit < 8; bit++)
            value = (value >> 1) ^ ((value & 1) != 0 ? polynomial : 0);
        tables[0][byte] = value;
    }
    for (int slice = 1; slice < SLICES; slice++)
        for (uint32_t byte = 0; byte < 256; byte++)
            tables[slice][byte] = (tables[slice - 1][byte] >> 8) ^ tables[0][tables[slice - 1][byte] & 0xff];
#if defined(__x86_64__)
    has_instruction = __builtin_cpu_supports("sse4.2");
#endif
}

uint32_t crc32c_by_tables(uint32_t crc, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;

    crc = ~crc;
    while (size >= SLICES) {
        uint32_t value = crc ^ ((uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24);
        crc = tables[7][value & 0xff] ^ tables[6][value >> 8 & 0xff] ^ tables[5][value >> 16 & 0xff] ^
              tables[4][value >> 24] ^ tables[3][at[4]] ^ tables[2][at[5]] ^ tables[1][at[6]] ^ tables[0][at[7]];
        at += SLICES;
        size -= SLICES;
    }
    while (size-- > 0)
        crc = (crc >> 8) ^ tables[0][(crc ^ *at++) & 0xff];
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const uint8_t *at, size_t size)
{
    uint64_t value = ~crc;

    while (size >= sizeof value) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        value = __builtin_ia32_crc32di(value, word);
        at += sizeof word;
        size -= sizeof word;
    }
    while (size-- > 0)
        value = __builtin_ia32_crc32qi((uint32_t)value, *at++);
    return ~(uint32_t)value;
}
#endif

uint32_t crc32c(uint32_t crc, const void *bytes, size_t size)
{
#if defined(__x86_64__)
    if (has_instruction)
        return by_instruction(crc, bytes, size);
#endif
    return crc32c_by_tables(crc, bytes, size);
}
