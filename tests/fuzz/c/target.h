/* What a fuzz target in C is: libFuzzer's own function, called for one input after the other by libFuzzer or by
 * driver.c. Inputs are copied to memory of exactly their size, so that a byte read behind them is noticed. */
#ifndef OUTLIVE_FUZZ_TARGET_H
#define OUTLIVE_FUZZ_TARGET_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void *copied(const void *data, size_t size)
{
    void *copy = malloc(size ? size : 1);
    if (copy == NULL)
        abort();
    if (size)
        memcpy(copy, data, size);
    return copy;
}

#endif
