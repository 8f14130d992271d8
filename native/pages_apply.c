#define _GNU_SOURCE
#include "pages.h"

#include <errno.h>
#include <lz4.h>
#include <string.h>

#include "crc32c.h"

/* A frame being read. Nothing in it is believed: every length and number is compared with its bound before use. */
struct reader {
    const uint8_t *packed;
    uint64_t size, at;
    uint64_t ram_pages;
    uint64_t next_page; /* the least number that the next page may have */
    uint8_t *scratch;
    struct pages_fault *fault;
    uint32_t block;
};

struct content {
    const uint8_t *bytes;
    uint32_t size, pages;
};

static bool refuse(struct reader *reader, enum pages_fault_code code)
{
    *reader->fault = (struct pages_fault){code, reader->block, reader->at};
    return false;
}

static uint16_t u16_at(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint32_t u32_at(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint64_t u64_at(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static bool header_read(struct reader *reader, uint32_t *pages, uint32_t *blocks, bool with_checksum)
{
    const uint8_t *header = reader->packed;

    if (reader->size < HEADER_BYTES)
        return refuse(reader, FAULT_SHORT);
    if (memcmp(header, "OLPG", 4) != 0 || u32_at(header + 32) != FRAME_VERSION || u32_at(header + 36) != 0)
        return refuse(reader, FAULT_MAGIC);
    if (u64_at(header + 8) != reader->size)
        return refuse(reader, FAULT_LENGTH);
    if (with_checksum && u32_at(header + 4) != crc32c(0, header + 8, reader->size - 8))
        return refuse(reader, FAULT_CHECKSUM);
    if (u64_at(header + 16) != reader->ram_pages || reader->ram_pages > UINT32_MAX)
        return refuse(reader, FAULT_RAM);
    *pages = u32_at(header + 24);
    *blocks = u32_at(header + 28);
    reader->at = HEADER_BYTES;
    return true;
}

static bool block_read(struct reader *reader, struct content *content)
{
    if (reader->size - reader->at < BLOCK_HEADER_BYTES)
        return refuse(reader, FAULT_BLOCK);
    const uint8_t *header = reader->packed + reader->at, *stored = header + BLOCK_HEADER_BYTES;
    uint32_t pages = u32_at(header), method = u32_at(header + 4), bytes = u32_at(header + 8);
    uint32_t size = u32_at(header + 12);

    if (pages < 1 || pages > BLOCK_PAGES || size < pages * ENTRY_BYTES || size > CONTENT_MOST || bytes > size ||
        bytes > reader->size - reader->at - BLOCK_HEADER_BYTES)
        return refuse(reader, FAULT_BLOCK);
    *content = (struct content){stored, size, pages};
    if (method == METHOD_LZ4) {
        if (LZ4_decompress_safe((const char *)stored, (char *)reader->scratch, (int)bytes, (int)size) != (int)size)
            return refuse(reader, FAULT_LZ4);
        content->bytes = reader->scratch;
    } else if (method != METHOD_PLAIN || bytes != size) {
        return refuse(reader, FAULT_BLOCK);
    }
    reader->at += BLOCK_HEADER_BYTES + bytes;
    return true;
}

static bool change_holds(const uint8_t *body, uint32_t length)
{
    uint32_t at = 0, word = 0;

    while (at < length) {
        if (length - at < 4)
            return false;
        uint32_t passed = u16_at(body + at), words = u16_at(body + at + 2);
        word += passed + words;
        at += 4;
        if (words == 0 || word > PAGE_WORDS || words * WORD_BYTES > length - at)
            return false;
        at += words * WORD_BYTES;
    }
    return true;
}

static bool content_holds(struct reader *reader, const struct content *content)
{
    uint32_t at = content->pages * ENTRY_BYTES;

    for (uint32_t index = 0; index < content->pages; index++) {
        const uint8_t *entry = content->bytes + index * ENTRY_BYTES;
        uint32_t page = u32_at(entry), kind = u16_at(entry + 4), length = u16_at(entry + 6);
        if (page >= reader->ram_pages)
            return refuse(reader, FAULT_BEYOND);
        if (page < reader->next_page)
            return refuse(reader, FAULT_ORDER);
        if (kind > KIND_WHOLE)
            return refuse(reader, FAULT_KIND);
        if (length > content->size - at || (kind == KIND_ZERO && length != 0) ||
            (kind == KIND_WHOLE && length != PAGE_BYTES))
            return refuse(reader, FAULT_BODY);
        if (kind == KIND_CHANGED && !change_holds(content->bytes + at, length))
            return refuse(reader, FAULT_CHANGE);
        at += length;
        reader->next_page = (uint64_t)page + 1;
    }
    return at == content->size || refuse(reader, FAULT_BODY);
}

static void change_apply(uint8_t *page, const uint8_t *body, uint32_t length)
{
    for (uint32_t at = 0, word = 0; at < length;) {
        uint32_t words = u16_at(body + at + 2);
        word += u16_at(body + at);
        memcpy(page + word * WORD_BYTES, body + at + 4, words * WORD_BYTES);
        word += words;
        at += 4 + words * WORD_BYTES;
    }
}

static void content_apply(const struct content *content, uint8_t *ram)
{
    uint32_t at = content->pages * ENTRY_BYTES;

    for (uint32_t index = 0; index < content->pages; index++) {
        const uint8_t *entry = content->bytes + index * ENTRY_BYTES, *body = content->bytes + at;
        uint8_t *page = page_at(ram, u32_at(entry));
        uint16_t kind = u16_at(entry + 4), length = u16_at(entry + 6);
        if (kind == KIND_WHOLE)
            memcpy(page, body, PAGE_BYTES);
        else if (kind == KIND_CHANGED)
            change_apply(page, body, length);
        else if (!page_is_zero(page))
            memset(page, 0, PAGE_BYTES);
        at += length;
    }
}

/* Goes through a frame; with `ram`, writes each block's pages once that block was found to hold. */
static int64_t walk(struct reader *reader, bool with_checksum, uint8_t *ram)
{
    uint32_t pages = 0, blocks = 0;
    uint64_t seen = 0;

    *reader->fault = (struct pages_fault){FAULT_NONE, 0, 0};
    if (!header_read(reader, &pages, &blocks, with_checksum))
        return -EBADMSG;
    for (; reader->block < blocks; reader->block++) {
        struct content content = {0};
        if (!block_read(reader, &content) || !content_holds(reader, &content))
            return -EBADMSG;
        seen += content.pages;
        if (ram != NULL)
            content_apply(&content, ram);
    }
    if (seen != pages || reader->at != reader->size) {
        (void)refuse(reader, FAULT_COUNT);
        return -EBADMSG;
    }
    return (int64_t)seen;
}

int64_t pages_check(const uint8_t *packed, uint64_t size, uint64_t ram_pages, uint8_t *scratch,
                    struct pages_fault *fault)
{
    struct reader reader = {
        .packed = packed, .size = size, .ram_pages = ram_pages, .scratch = scratch, .fault = fault};

    return walk(&reader, true, NULL);
}

int64_t pages_apply(const uint8_t *packed, uint64_t size, uint64_t ram_pages, uint8_t *scratch,
                    struct pages_fault *fault, uint8_t *ram)
{
    struct reader reader = {
        .packed = packed, .size = size, .ram_pages = ram_pages, .scratch = scratch, .fault = fault};

    return walk(&reader, false, ram);
}
