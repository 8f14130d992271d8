#define _GNU_SOURCE
#include "pages.h"

#include <errno.h>
#include <lz4.h>
#include <string.h>

#include "crc32c.h"

/* Blocks with less content are left as they are: compressing them saves nothing worth the call. */
enum { COMPRESS_LEAST = 256 };

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "frames are little endian, and written as they stand");

struct entry {
    uint32_t page;
    uint16_t kind;
    uint16_t length;
};

_Static_assert(sizeof(struct entry) == ENTRY_BYTES, "an entry has no gaps");

uint64_t pages_scratch_bytes(void)
{
    return CONTENT_MOST;
}

uint64_t pages_lz4_state_bytes(void)
{
    return (uint64_t)LZ4_sizeofState();
}

uint64_t pages_packed_bound(uint64_t pages)
{
    uint64_t blocks = (pages + BLOCK_PAGES - 1) / BLOCK_PAGES;

    return HEADER_BYTES + blocks * BLOCK_HEADER_BYTES + pages * (ENTRY_BYTES + PAGE_BYTES);
}

uint32_t pages_crc32c(const uint8_t *bytes, uint64_t size, int by_tables)
{
    return by_tables ? crc32c_by_tables(0, bytes, size) : crc32c(0, bytes, size);
}

int64_t pages_copy_out(const uint8_t *ram, uint64_t ram_pages, const struct run *runs, uint64_t count, uint64_t skip,
                       uint32_t *numbers, uint8_t *data, uint64_t capacity)
{
    uint64_t copied = 0, end = 0;

    for (uint64_t index = 0; index < count && copied < capacity; index++) {
        uint64_t first = runs[index].first, pages = runs[index].count;
        if (first < end || first + pages > ram_pages)
            return -EINVAL;
        end = first + pages;
        if (skip >= pages) {
            skip -= pages;
            continue;
        }
        first += skip;
        pages -= skip;
        skip = 0;
        if (pages > capacity - copied)
            pages = capacity - copied;
        memcpy(page_at(data, copied), page_of(ram, first), pages * PAGE_BYTES);
        for (uint64_t page = 0; page < pages; page++)
            numbers[copied + page] = (uint32_t)(first + page);
        copied += pages;
    }
    return (int64_t)copied;
}

static bool word_is_same(const uint8_t *now, const uint8_t *held, size_t word)
{
    uint64_t new_word, old_word;

    memcpy(&new_word, now + word * WORD_BYTES, sizeof new_word);
    memcpy(&old_word, held + word * WORD_BYTES, sizeof old_word);
    return new_word == old_word;
}

/* The words of a page that are not what the receiver holds; 0 when that takes more than CHANGE_MOST bytes. */
static size_t change_write(const uint8_t *now, const uint8_t *held, uint8_t *out)
{
    size_t used = 0, word = 0, behind = 0;

    for (;;) {
        while (word < PAGE_WORDS && word_is_same(now, held, word))
            word++;
        if (word == PAGE_WORDS)
            return used;
        size_t first = word;
        while (word < PAGE_WORDS && !word_is_same(now, held, word))
            word++;
        uint16_t head[2] = {(uint16_t)(first - behind), (uint16_t)(word - first)};
        size_t bytes = (word - first) * WORD_BYTES;
        if (used + sizeof head + bytes > CHANGE_MOST)
            return 0;
        memcpy(out + used, head, sizeof head);
        memcpy(out + used + sizeof head, now + first * WORD_BYTES, bytes);
        used += sizeof head + bytes;
        behind = word;
    }
}

/* Writes a page's body to `out` and remembers the page; false when the receiver holds exactly this already. */
static bool page_write(struct pages_packer *packer, uint32_t page, const uint8_t *now, uint8_t *out,
                       struct entry *entry)
{
    uint64_t slot = packer->slots > 0 ? page % packer->slots : 0;
    uint8_t *held = packer->slots > 0 ? page_at(packer->shadow, slot) : NULL;
    bool is_known = held != NULL && packer->tags[slot] == page + 1;
    size_t change;

    if (is_known && memcmp(held, now, PAGE_BYTES) == 0) {
        packer->same++;
        return false;
    }
    if (page_is_zero(now)) {
        *entry = (struct entry){page, KIND_ZERO, 0};
        packer->zero++;
    } else if (is_known && (change = change_write(now, held, out)) > 0) {
        *entry = (struct entry){page, KIND_CHANGED, (uint16_t)change};
        packer->delta++;
    } else {
        memcpy(out, now, PAGE_BYTES);
        *entry = (struct entry){page, KIND_WHOLE, PAGE_BYTES};
        packer->raw++;
    }
    if (held != NULL) {
        memcpy(held, now, PAGE_BYTES);
        packer->tags[slot] = page + 1;
    }
    return true;
}

/* Packs up to BLOCK_PAGES pages; returns the bytes written to `out`, 0 when the receiver holds all of them. */
static size_t block_write(struct pages_packer *packer, const uint32_t *numbers, const uint8_t *data, size_t count,
                          uint8_t *out, uint32_t *pages)
{
    struct entry entries[BLOCK_PAGES];
    /* The entries come to stand right before the bodies, wherever that turns out to be. */
    uint8_t *bodies = packer->plain + sizeof entries, *at = bodies;
    uint32_t written = 0;

    for (size_t index = 0; index < count; index++)
        if (page_write(packer, numbers[index], page_of(data, index), at, &entries[written]))
            at += entries[written++].length;
    *pages = written;
    if (written == 0)
        return 0;
    uint8_t *content = bodies - written * sizeof *entries;
    memcpy(content, entries, written * sizeof *entries);
    uint32_t size = (uint32_t)(at - content), stored = 0, method = METHOD_LZ4;
    packer->plain_bytes += size;

    /* It pays from an eighth saved on; else LZ4 gives up on the way, for want of room. */
    if (packer->compress && size >= COMPRESS_LEAST)
        stored = (uint32_t)LZ4_compress_fast_extState(packer->lz4_state, (const char *)content,
                                                      (char *)out + BLOCK_HEADER_BYTES, (int)size,
                                                      (int)(size - size / 8), 1);
    if (stored == 0) {
        memcpy(out + BLOCK_HEADER_BYTES, content, size);
        stored = size;
        method = METHOD_PLAIN;
    }
    uint32_t header[4] = {written, method, stored, size};
    memcpy(out, header, sizeof header);
    return sizeof header + stored;
}

static void header_write(uint8_t *out, uint64_t size, uint64_t ram_pages, uint32_t pages, uint32_t blocks)
{
    uint32_t tail[4] = {pages, blocks, FRAME_VERSION, 0};

    memcpy(out, "OLPG", 4);
    memcpy(out + 8, &size, sizeof size);
    memcpy(out + 16, &ram_pages, sizeof ram_pages);
    memcpy(out + 24, tail, sizeof tail);
    uint32_t checksum = crc32c(0, out + 8, size - 8);
    memcpy(out + 4, &checksum, sizeof checksum);
}

int64_t pages_encode(struct pages_packer *packer, const uint32_t *numbers, const uint8_t *data, uint64_t count,
                     uint8_t *out, uint64_t room)
{
    uint64_t size = HEADER_BYTES;
    uint32_t pages = 0, blocks = 0;

    /* All that can be wrong is found before the packer remembers anything. */
    if (count > packer->ram_pages || packer->ram_pages > UINT32_MAX)
        return -EINVAL;
    if (pages_packed_bound(count) > room)
        return -ENOSPC;
    for (uint64_t index = 0; index < count; index++)
        if (numbers[index] >= packer->ram_pages || (index > 0 && numbers[index] <= numbers[index - 1]))
            return -EINVAL;

    packer->zero = packer->same = packer->delta = packer->raw = packer->plain_bytes = 0;
    for (uint64_t first = 0; first < count; first += BLOCK_PAGES) {
        uint64_t rest = count - first;
        uint32_t in_block;
        size_t used = block_write(packer, numbers + first, page_of(data, first),
                                  rest < BLOCK_PAGES ? rest : BLOCK_PAGES, out + size, &in_block);
        size += used;
        pages += in_block;
        blocks += used > 0;
    }
    header_write(out, size, packer->ram_pages, pages, blocks);
    packer->packed_bytes = size;
    return (int64_t)size;
}
