#define _GNU_SOURCE
#include "pages.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static int64_t map_private(uint64_t size, void **address)
{
    uint8_t *mapped = mmap(NULL, size + PAGE_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED)
        return -errno;
    if (mprotect(mapped + size, PAGE_BYTES, PROT_NONE) != 0) {
        int failed = errno;
        (void)munmap(mapped, size + PAGE_BYTES);
        return -failed;
    }
    *address = mapped;
    return 0;
}

static int64_t map_file(int fd, uint64_t size, int writable, void **address)
{
    struct stat stat;

    if (fstat(fd, &stat) != 0)
        return -errno;
    /* Touching a page beyond the end of a file kills the one who touches it. */
    if (stat.st_size < 0 || (uint64_t)stat.st_size < size)
        return -ENODATA;
    void *mapped = mmap(NULL, size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (mapped == MAP_FAILED)
        return -errno;
    *address = mapped;
    return 0;
}

int64_t pages_map(int fd, uint64_t size, int writable, void **address)
{
    if (size == 0 || size % PAGE_BYTES != 0 || size / PAGE_BYTES > UINT32_MAX)
        return -EINVAL;
    int64_t result = fd < 0 ? map_private(size, address) : map_file(fd, size, writable, address);
    /* A guest's memory has no place in a core dump; where the kernel cannot leave it out, it still works. */
    if (result == 0)
        (void)madvise(*address, size, MADV_DONTDUMP);
    return result;
}

int64_t pages_unmap(void *address, uint64_t size, int is_private)
{
    return munmap(address, is_private ? size + PAGE_BYTES : size) == 0 ? 0 : -errno;
}

int64_t pages_give_back(void *address, uint64_t size, uint64_t keep)
{
    uint64_t kept = (keep + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;

    if (kept >= size)
        return 0;
    return madvise((uint8_t *)address + kept, size - kept, MADV_DONTNEED) == 0 ? 0 : -errno;
}

bool page_is_zero(const uint8_t *page)
{
    uint64_t first[2];

    memcpy(first, page, sizeof first);
    return (first[0] | first[1]) == 0 && memcmp(page, page + sizeof first, PAGE_BYTES - sizeof first) == 0;
}
