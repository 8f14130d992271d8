/* CRC-32C (Castagnoli), with the processor's own instruction where it has one: tells a frame of pages that was
 * harmed on its way. No protection against a forger; the stream that carries frames is authenticated by others. */
#ifndef OUTLIVE_CRC32C_H
#define OUTLIVE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of `size` bytes, going on from `crc` (0 at first). */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t size);

/* The same by tables alone, which is what machines without the instruction use. */
uint32_t crc32c_by_tables(uint32_t crc, const void *bytes, size_t size);

#endif
