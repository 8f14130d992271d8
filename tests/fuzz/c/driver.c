/* Calls a target where there is no libFuzzer: DRIVER COUNT SEED CRASH FILE…, so many changed inputs made of the files by
 * chance. Whatever a sanitizer ends is left in the file CRASH. Prints how many inputs were tried. */
#include <stdio.h>

#include "target.h"

void __sanitizer_set_death_callback(void (*callback)(void));

enum { MOST_FILES = 256, MOST_BYTES = 128 * 1024 };

static struct {
    uint8_t *bytes;
    size_t size;
} files[MOST_FILES];
static uint8_t input[MOST_BYTES];
static size_t size;
static const char *crash;
static uint64_t state;

static uint64_t draw(uint64_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return below ? state % below : 0;
}

static void keep(void)
{
    FILE *file = fopen(crash, "wb");
    if (file != NULL) {
        fwrite(input, 1, size, file);
        fclose(file);
    }
}

static void take(const char *path, size_t number)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        exit(2);
    size = fread(input, 1, sizeof input, file);
    files[number].bytes = copied(input, size);
    files[number].size = size;
    fclose(file);
}

static void change(void)
{
    static const uint64_t odd[] = {0, 1, 0x7f, 0xff, 0x100, 0x1ff, 0xfff, 0x1000, 0xffff, 0x10000, 0x7fffffff,
                                   0x80000000, 0xffffffff, 0x7fffffffffffffff, 0xffffffffffffffff};
    /* Most of what decides stands at the beginning. */
    size_t at = draw(draw(2) || size < 128 ? size + 1 : 128);
    size_t length = draw(draw(4) ? 9 : 700), left = size - at;

    switch (draw(5)) {
    case 0:
        if (left)
            input[at] ^= (uint8_t)(1u << draw(8));
        break;
    case 1: {
        uint64_t value = draw(2) ? odd[draw(sizeof odd / sizeof *odd)] : size - at + draw(16) - 8;
        size_t width = (size_t)1 << draw(4);
        if (left >= width)
            memcpy(input + at, &value, width);
        break;
    }
    case 2:
        length = length < left ? length : left;
        memmove(input + at, input + at + length, left - length);
        size -= length;
        break;
    case 3:
        if (size + length < sizeof input) {
            memmove(input + at + length, input + at, left);
            memset(input + at, draw(2) ? 0 : (int)draw(256), length < left ? 0 : length - left);
            size += length;
        }
        break;
    default:
        if (left)
            input[at] = (uint8_t)draw(256);
    }
}

int main(int count, char *words[])
{
    if (count < 5 || count - 4 > MOST_FILES)
        return 2;
    uint64_t tries = strtoull(words[1], NULL, 10);
    size_t known = (size_t)count - 4;
    state = strtoull(words[2], NULL, 10) * 2 + 1;
    crash = words[3];
    __sanitizer_set_death_callback(keep);
    for (size_t number = 0; number < known; number++)
        take(words[4 + number], number);
    for (uint64_t tried = 0; tried < tries + known; tried++) {
        size_t number = tried < known ? tried : draw(known);
        size = files[number].size;
        memcpy(input, files[number].bytes, size);
        for (uint64_t changes = tried < known ? 0 : 1 + draw(5); changes; changes--)
            change();
        LLVMFuzzerTestOneInput(input, size);
    }
    printf("tried %llu\n", (unsigned long long)(tries + known));
    return 0;
}
