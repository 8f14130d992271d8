#define _GNU_SOURCE
#include "pages.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/types.h>
#include <unistd.h>

/* <linux/fs.h> of kernel 6.7; Debian 12's headers are older than the kernels it may run on. */
struct region {
    uint64_t start, end, categories;
};

struct scan_request {
    uint64_t size, flags, start, end, walk_end, regions, region_count, most_pages;
    uint64_t inverted, mask, any_of, returned;
};

#define PAGEMAP_SCAN_ _IOWR('f', 16, struct scan_request)
#define PAGE_WRITTEN (UINT64_C(1) << 1)
#define SCAN_PROTECT_MATCHING (UINT64_C(1) << 0)
#define SCAN_CHECK_TRACKED (UINT64_C(1) << 1)

/* On the stack, so that no caller has to lend room for the kernel's form of a run. */
enum { REGIONS_AT_ONCE = 512 };

struct found {
    struct run *runs;
    uint64_t capacity, count, pages;
};

static bool found_add(struct found *found, uint64_t first, uint64_t count)
{
    struct run *last = found->count > 0 ? &found->runs[found->count - 1] : NULL;

    if (last != NULL && (uint64_t)last->first + last->count == first) {
        last->count += (uint32_t)count;
    } else {
        if (found->count == found->capacity)
            return false;
        found->runs[found->count++] = (struct run){(uint32_t)first, (uint32_t)count};
    }
    found->pages += count;
    return true;
}

int64_t pages_scan(int pagemap, uint64_t start, uint64_t ram_pages, int protect, struct run *runs, uint64_t capacity,
                   uint64_t *pages)
{
    struct found found = {.runs = runs, .capacity = capacity};
    struct region regions[REGIONS_AT_ONCE];
    struct scan_request request = {
        .size = sizeof request,
        .flags = SCAN_CHECK_TRACKED | (protect ? SCAN_PROTECT_MATCHING : 0),
        .start = start,
        .end = start + ram_pages * PAGE_BYTES,
        .regions = (uint64_t)(uintptr_t)regions,
        .mask = PAGE_WRITTEN,
        .returned = PAGE_WRITTEN,
    };
    int64_t result = 0;

    *pages = 0;
    while (request.start < request.end) {
        /* Never ask for more than there is room for: what the kernel tells, it has already protected. */
        uint64_t room = capacity - found.count;
        if (room == 0) {
            result = -ENOSPC;
            break;
        }
        request.region_count = room < REGIONS_AT_ONCE ? room : REGIONS_AT_ONCE;
        int got = ioctl(pagemap, PAGEMAP_SCAN_, &request);
        if (got < 0) {
            if (errno == EINTR || errno == EAGAIN)
                continue;
            result = -errno;
            break;
        }
        for (int index = 0; index < got; index++)
            (void)found_add(&found, (regions[index].start - start) / PAGE_BYTES,
                            (regions[index].end - regions[index].start) / PAGE_BYTES);
        if (request.walk_end <= request.start)
            break;
        request.start = request.walk_end;
    }
    *pages = found.pages;
    return result < 0 ? result : (int64_t)found.count;
}

/* Where a file has content: the part that begins at or before `end`, as far as it was asked for. */
struct content {
    int fd;
    uint64_t begin, end; /* pages */
};

static void content_look(struct content *content, uint64_t page)
{
    off_t data = lseek(content->fd, (off_t)(page * PAGE_BYTES), SEEK_DATA);
    off_t hole = data < 0 ? -1 : lseek(content->fd, data, SEEK_HOLE);

    content->begin = page;
    content->end = UINT64_MAX;
    if (data < 0 && errno == ENXIO) {
        content->begin = UINT64_MAX;
    } else if (data >= 0 && hole >= 0) {
        content->begin = (uint64_t)data / PAGE_BYTES;
        content->end = ((uint64_t)hole + PAGE_BYTES - 1) / PAGE_BYTES;
    } /* else: a file system that does not tell; everything may have content */
}

static bool is_hole(struct content *content, uint64_t page)
{
    if (content->fd >= 0 && page >= content->end)
        content_look(content, page);
    return content->fd >= 0 && page < content->begin;
}

int64_t pages_compare(const uint8_t *ram, uint8_t *copy, uint64_t ram_pages, int fd, int protect, struct run *runs,
                      uint64_t capacity, uint64_t *pages)
{
    struct found found = {.runs = runs, .capacity = capacity};
    struct content content = {.fd = fd};
    static const uint8_t zeros[PAGE_BYTES];

    *pages = 0;
    for (uint64_t page = 0; page < ram_pages; page++) {
        uint8_t *old = page_at(copy, page);
        const uint8_t *now = is_hole(&content, page) ? zeros : page_of(ram, page);
        if (memcmp(now, old, PAGE_BYTES) == 0)
            continue;
        if (!found_add(&found, page, 1)) {
            *pages = found.pages;
            return -ENOSPC;
        }
        if (protect)
            memcpy(old, now, PAGE_BYTES);
    }
    *pages = found.pages;
    return (int64_t)found.count;
}

int64_t pages_nonzero(const uint8_t *ram, uint64_t ram_pages, int fd, const struct run *runs, uint64_t count,
                      struct run *into, uint64_t capacity, uint64_t *pages)
{
    struct found found = {.runs = into, .capacity = capacity};
    struct content content = {.fd = fd};

    *pages = 0;
    for (uint64_t index = 0; index < count; index++) {
        uint64_t end = (uint64_t)runs[index].first + runs[index].count;
        if (end > ram_pages || (index > 0 && runs[index].first < (uint64_t)runs[index - 1].first + runs[index - 1].count))
            return -EINVAL;
        for (uint64_t page = runs[index].first; page < end; page++)
            if (!is_hole(&content, page) && !page_is_zero(page_of(ram, page)) && !found_add(&found, page, 1))
                return -ENOSPC;
    }
    *pages = found.pages;
    return (int64_t)found.count;
}
