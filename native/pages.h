/* Guest pages: which were written, copies of them, and packed frames that carry them to a standby.
 *
 * Everything here works on memory that the caller gives; nothing allocates but pages_map. Results are counts or
 * -errno. Pages have 4096 bytes and 32-bit numbers, counted from the beginning of the guest's RAM. A function that
 * writes RAM checks every page number itself, whoever called it.
 *
 * A packed frame, all numbers little endian:
 *
 *   header   "OLPG", CRC-32C of all bytes from the 8th on (u32), length of the frame with this header (u64),
 *            pages of the RAM it is for (u64), pages in it (u32), blocks (u32), version 1 (u32), 0 (u32)
 *   block    pages (u32, 1 to 64), method (u32: 0 as it is, 1 LZ4), bytes that follow (u32), bytes of the content (u32)
 *            and those bytes
 *   content  for each page: number (u32), kind (u16), length of its body (u16); then the bodies in this order
 *   body     kind 0, zeros: nothing. Kind 1, changed words: any of {words to pass over (u16), words that follow
 *            (u16, not 0), those words of 8 bytes}. Kind 2, whole: the 4096 bytes
 *
 * Page numbers grow through the whole frame. Changed words are found by comparing with what the receiver holds and
 * sent as they are now, not as a difference: a frame applied twice, or again after half of it, gives the same RAM. */
#ifndef OUTLIVE_PAGES_H
#define OUTLIVE_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the library shows to Python. */
#pragma GCC visibility push(default)

enum {
    PAGE_BYTES = 4096,
    WORD_BYTES = 8,
    PAGE_WORDS = PAGE_BYTES / WORD_BYTES,
    HEADER_BYTES = 40,
    BLOCK_HEADER_BYTES = 16,
    ENTRY_BYTES = 8,
    BLOCK_PAGES = 64,
    CONTENT_MOST = BLOCK_PAGES * (ENTRY_BYTES + PAGE_BYTES),
    FRAME_VERSION = 1,
    /* Changed words longer than this are not worth their trouble: the page goes whole. */
    CHANGE_MOST = PAGE_BYTES * 3 / 4,
};

enum pages_kind { KIND_ZERO, KIND_CHANGED, KIND_WHOLE };
enum pages_method { METHOD_PLAIN, METHOD_LZ4 };

struct run {
    uint32_t first;
    uint32_t count;
};

/* What a packer remembers of its receiver, its room, and what became of the pages of its last frame. */
struct pages_packer {
    uint64_t ram_pages;
    uint8_t *shadow; /* `slots` pages: page P, as the receiver holds it, is in slot P % slots if its tag says P + 1 */
    uint32_t *tags;
    uint64_t slots; /* 0: nothing is remembered */
    uint8_t *plain; /* pages_scratch_bytes() */
    void *lz4_state; /* pages_lz4_state_bytes() */
    uint32_t compress;
    uint32_t reserved;
    uint64_t zero, same, delta, raw; /* pages; the same ones are left out */
    uint64_t plain_bytes, packed_bytes;
};

enum pages_fault_code {
    FAULT_NONE,
    FAULT_SHORT,
    FAULT_MAGIC,
    FAULT_LENGTH,
    FAULT_CHECKSUM,
    FAULT_RAM,
    FAULT_COUNT,
    FAULT_BLOCK,
    FAULT_LZ4,
    FAULT_KIND,
    FAULT_BEYOND,
    FAULT_ORDER,
    FAULT_BODY,
    FAULT_CHANGE,
};

/* Why a frame is refused, and where: the block, and the byte of the frame at which that begins. */
struct pages_fault {
    uint32_t code;
    uint32_t block;
    uint64_t offset;
};

/* Maps a file of at least `size` bytes, shared; with fd -1 private zeroed memory behind which no byte can be
 * touched. pages_unmap's size is that of pages_map. */
int64_t pages_map(int fd, uint64_t size, int writable, void **address);
int64_t pages_unmap(void *address, uint64_t size, int is_private);

/* Empties private memory behind its first `keep` bytes. */
int64_t pages_give_back(void *address, uint64_t size, uint64_t keep);

/* The pages written in [start, start + ram_pages) of the process whose pagemap it is, since they were last
 * protected; `protect` protects the told ones again. Returns how many runs; -ENOSPC when they have no room (those
 * told and protected so far are then in `runs`, and *pages says how many pages they are). */
int64_t pages_scan(int pagemap, uint64_t start, uint64_t ram_pages, int protect, struct run *runs, uint64_t capacity,
                   uint64_t *pages);

/* The same without the kernel's help: pages that differ from `copy`; `protect` brings the copy up to date. `fd` is
 * the RAM's file or -1: its holes are not read, for that would fill them. */
int64_t pages_compare(const uint8_t *ram, uint8_t *copy, uint64_t ram_pages, int fd, int protect, struct run *runs,
                      uint64_t capacity, uint64_t *pages);

/* Those pages of `runs` that are not all zeros. */
int64_t pages_nonzero(const uint8_t *ram, uint64_t ram_pages, int fd, const struct run *runs, uint64_t count,
                      struct run *into, uint64_t capacity, uint64_t *pages);

/* Copies the pages of `runs` but for the first `skip`, at most `capacity`; this is all that a guest has to stand
 * still for. Returns how many; -EINVAL when runs do not grow or reach beyond RAM. */
int64_t pages_copy_out(const uint8_t *ram, uint64_t ram_pages, const struct run *runs, uint64_t count, uint64_t skip,
                       uint32_t *numbers, uint8_t *data, uint64_t capacity);

uint64_t pages_scratch_bytes(void);
uint64_t pages_lz4_state_bytes(void);
uint64_t pages_packed_bound(uint64_t pages);

/* Packs copied pages, whose numbers grow. Returns the frame's length. */
int64_t pages_encode(struct pages_packer *packer, const uint32_t *numbers, const uint8_t *data, uint64_t count,
                     uint8_t *out, uint64_t room);

/* Whether a frame is whole and valid for this RAM: its pages, or -EBADMSG and `fault`. */
int64_t pages_check(const uint8_t *packed, uint64_t size, uint64_t ram_pages, uint8_t *scratch,
                    struct pages_fault *fault);

/* Writes a checked frame's pages into RAM. It checks all but the checksum again, block by block, and so never
 * writes outside of RAM even when it is given something else. */
int64_t pages_apply(const uint8_t *packed, uint64_t size, uint64_t ram_pages, uint8_t *scratch,
                    struct pages_fault *fault, uint8_t *ram);

uint32_t pages_crc32c(const uint8_t *bytes, uint64_t size, int by_tables);

static inline uint8_t *page_at(uint8_t *memory, uint64_t page)
{
    return memory + page * PAGE_BYTES;
}

static inline const uint8_t *page_of(const uint8_t *memory, uint64_t page)
{
    return memory + page * PAGE_BYTES;
}

/* All zeros: the first words are, and each byte equals the one 16 further on. */
bool page_is_zero(const uint8_t *page);

#pragma GCC visibility pop

#endif
