/* libpagewatch.so, to be preloaded into QEMU: has the kernel track which pages of the guest's RAM are written, so that
 * another process can ask (PAGEMAP_SCAN on /proc/PID/pagemap) without the guest or QEMU noticing.
 *
 * It reads two variables from the environment and takes them out, so that no child watches anything:
 *   OUTLIVE_PAGEWATCH_BYTES  every shared writable mapping of a file of at least this many bytes is registered
 *   OUTLIVE_PAGEWATCH_TO     the file to tell it in: a line "START SIZE" in hexadecimal for each; or "failed: WHY"
 * The file appears by a rename and is whole whenever it can be read. Without the variables nothing happens. A failure
 * is told and nothing else: QEMU gets the mapping that it asked for in any case.
 *
 * Tracking is asynchronous write-protection by userfaultfd (kernel 6.7): the kernel itself lifts the protection of a
 * page that is written and remembers; no event is ever sent. It stands as long as the process and the descriptor,
 * which is why that is never closed. */
/* Else the headers would make one name of the two that are defined below. */
#undef _FILE_OFFSET_BITS
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef __LP64__
#error "the offset of mmap is passed to the kernel as it is, which 32-bit systems do not do"
#endif

/* <linux/userfaultfd.h> of kernel 6.7. */
#define TRACK_SHARED (UINT64_C(1) << 12)
#define TRACK_UNPOPULATED (UINT64_C(1) << 13)
#define TRACK_WITHOUT_EVENTS (UINT64_C(1) << 15)
#define USER_MODE_ONLY 1

enum { REGIONS_MOST = 16, LINE_BYTES = 64, TEXT_BYTES = REGIONS_MOST * LINE_BYTES + 256 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t least_bytes;
static char to[PATH_MAX];
static char to_new[PATH_MAX + 8];
static char text[TEXT_BYTES];
static size_t text_bytes;
static int tracker = -1;
static int regions;

__attribute__((constructor)) static void settings_take(void)
{
    const char *bytes = getenv("OUTLIVE_PAGEWATCH_BYTES"), *path = getenv("OUTLIVE_PAGEWATCH_TO");
    char *end;

    if (bytes == NULL || path == NULL || strlen(path) >= sizeof to)
        return;
    uint64_t least = strtoull(bytes, &end, 10);
    if (*bytes < '0' || *bytes > '9' || *end != '\0' || least == 0)
        return;
    strcpy(to, path);
    (void)snprintf(to_new, sizeof to_new, "%s.new", to);
    (void)unsetenv("OUTLIVE_PAGEWATCH_BYTES");
    (void)unsetenv("OUTLIVE_PAGEWATCH_TO");
    least_bytes = least;
}

/* There is nobody to tell when this fails: the one who waits for the file sees that it does not come. */
static void told_write(void)
{
    int fd = open(to_new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return;
    ssize_t wrote = write(fd, text, text_bytes);
    if (close(fd) == 0 && wrote == (ssize_t)text_bytes && rename(to_new, to) == 0)
        return;
    (void)unlink(to_new);
}

static void tell_failure(const char *what, int why)
{
    char name[128];

    text_bytes = (size_t)snprintf(text, sizeof text, "failed: %s: %s\n", what, strerror_r(why, name, sizeof name));
    told_write();
    least_bytes = 0;
}

static void tell_region(const void *start, size_t size)
{
    text_bytes += (size_t)snprintf(text + text_bytes, LINE_BYTES, "%" PRIxPTR " %zx\n", (uintptr_t)start, size);
    regions++;
    told_write();
}

static bool tracker_open(void)
{
    struct uffdio_api api = {
        .api = UFFD_API, .features = TRACK_SHARED | TRACK_UNPOPULATED | TRACK_WITHOUT_EVENTS};

    if (tracker >= 0)
        return true;
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    /* Without privilege only faults of user space may be handled, which is enough: none is, by us. */
    if (fd < 0 && errno == EPERM)
        fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);
    if (fd < 0) {
        tell_failure("userfaultfd", errno);
        return false;
    }
    if (ioctl(fd, UFFDIO_API, &api) != 0) {
        tell_failure("this kernel cannot track written pages without events (6.7 can)", errno);
        (void)close(fd);
        return false;
    }
    tracker = fd;
    return true;
}

static void region_register(void *start, size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct uffdio_register request = {
        .range = {.start = (uintptr_t)start, .len = (size + page - 1) / page * page},
        .mode = UFFDIO_REGISTER_MODE_WP,
    };

    if (pthread_mutex_lock(&lock) != 0)
        return;
    if (least_bytes != 0 && regions < REGIONS_MOST && tracker_open()) {
        if (ioctl(tracker, UFFDIO_REGISTER, &request) == 0)
            tell_region(start, size);
        else
            tell_failure("registering the guest's memory", errno);
    }
    (void)pthread_mutex_unlock(&lock);
}

/* The system call itself, not the C library's function: nothing has to be looked up, however early we are called. */
__attribute__((visibility("default"))) void *mmap(void *start, size_t size, int protection, int flags, int fd,
                                                  off_t offset)
{
    void *mapped = (void *)syscall(SYS_mmap, start, size, protection, flags, fd, offset);
    int before = errno;

    /* MAP_SHARED_VALIDATE has the bit of MAP_SHARED, too. */
    if (mapped != MAP_FAILED && least_bytes != 0 && size >= least_bytes && fd >= 0 && (flags & MAP_SHARED) != 0 &&
        (flags & MAP_ANONYMOUS) == 0 && (protection & PROT_WRITE) != 0)
        region_register(mapped, size);
    errno = before;
    return mapped;
}

__attribute__((visibility("default"))) void *mmap64(void *start, size_t size, int protection, int flags, int fd,
                                                    off_t offset)
{
    return mmap(start, size, protection, flags, fd, offset);
}
