/* Packed pages: checked, and applied to RAM of exactly that size whatever the check said. Then the same with length
 * and checksum put right, so that only what stands behind them can be wrong. */
#include "pages.h"
#include "target.h"

enum { RAM_PAGES = 20, HEADER = 40 };

static void offer(const uint8_t *data, size_t size)
{
    static uint8_t *ram, *scratch;
    struct pages_fault fault;
    uint8_t *copy = copied(data, size);

    if (ram == NULL) {
        ram = malloc((size_t)RAM_PAGES * PAGE_BYTES);
        scratch = malloc(pages_scratch_bytes());
    }
    int64_t pages = pages_check(copy, size, RAM_PAGES, scratch, &fault);
    int64_t applied = pages_apply(copy, size, RAM_PAGES, scratch, &fault, ram);
    if (pages >= 0 && applied != pages)
        abort();
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    offer(data, size);
    if (size >= HEADER) {
        uint8_t *sealed = copied(data, size);
        uint64_t length = size;
        memcpy(sealed, "OLPG", 4);
        memcpy(sealed + 8, &length, sizeof length);
        uint32_t sum = pages_crc32c(sealed + 8, size - 8, 0);
        memcpy(sealed + 4, &sum, sizeof sum);
        offer(sealed, size);
        free(sealed);
    }
    return 0;
}
