/* A run lock's file, as storage gives it back: read, and once more with the checksum that it should have. */
#define main runlock_main
#include "../../../native/runlock.c"
#undef main

#include "target.h"

static void offer(const char text[RECORD_BYTES + 1])
{
    struct record record;
    char *copy = copied(text, RECORD_BYTES + 1);
    if (record_parse(copy, &record) == NULL && record.generation > INT64_MAX)
        abort();
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[RECORD_BYTES + 1];
    size_t taken = size < RECORD_BYTES ? size : RECORD_BYTES;

    memset(text, ' ', sizeof text);
    if (taken)
        memcpy(text, data, taken);
    text[RECORD_BYTES] = '\0';
    offer(text);
    snprintf(text + RECORD_BYTES - SUM_BYTES, SUM_BYTES + 1, "#%016" PRIx64 "\n", checksum(text, RECORD_BYTES - SUM_BYTES));
    offer(text);
    return 0;
}
