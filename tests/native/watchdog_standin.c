/* A watchdog device for a guard that is tested: opening OUTLIVE_TEST_WATCHDOG connects to a socket of that name, and what
 * the kernel's driver would be asked by ioctl is asked there. What is written goes there with the moment at which it was,
 * since whoever listens may be late; that the descriptor is closed, also by a death, shows there as it would to a driver.
 * To be preloaded. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct question {
    uint64_t request;
    int64_t value;
    int64_t is_question;
};

struct answer {
    int64_t error;
    int64_t value;
    struct watchdog_info info;
};

struct feed {
    int64_t boottime_ns;
    char byte;
};

static int device = -1;

static int device_open(const char *path)
{
    struct sockaddr_un name = { .sun_family = AF_UNIX };

    device = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    strncpy(name.sun_path, path, sizeof name.sun_path - 1);
    if (device < 0 || connect(device, (struct sockaddr *)&name, sizeof name) != 0) {
        errno = ENODEV;
        return -1;
    }
    return device;
}

typedef int opening(const char *, int, ...);

static int open_either(const char *name, const char *path, int flags, int mode)
{
    const char *ours = getenv("OUTLIVE_TEST_WATCHDOG");

    if (ours != NULL && strcmp(path, ours) == 0)
        return device_open(path);
    return ((opening *)dlsym(RTLD_NEXT, name))(path, flags, mode);
}

/* Under both names that a program may know it by. */
int open(const char *path, int flags, ...)
{
    va_list more;

    va_start(more, flags);
    int mode = va_arg(more, int);
    va_end(more);
    return open_either("open", path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list more;

    va_start(more, flags);
    int mode = va_arg(more, int);
    va_end(more);
    return open_either("open64", path, flags, mode);
}

ssize_t write(int fd, const void *bytes, size_t size)
{
    static ssize_t (*real)(int, const void *, size_t);
    struct timespec now;

    if (fd == device && fd >= 0) {
        struct feed feed = { .byte = *(const char *)bytes };
        clock_gettime(CLOCK_BOOTTIME, &now);
        feed.boottime_ns = now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
        return send(fd, &feed, sizeof feed, MSG_NOSIGNAL) == sizeof feed ? 1 : -1;
    }
    if (real == NULL)
        real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    return real(fd, bytes, size);
}

int ioctl(int fd, unsigned long request, ...)
{
    static int (*real)(int, unsigned long, ...);
    va_list more;

    va_start(more, request);
    void *argument = va_arg(more, void *);
    va_end(more);
    if (fd != device || fd < 0) {
        if (real == NULL)
            real = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
        return real(fd, request, argument);
    }
    struct question question = { .request = request };
    struct answer answer;
    if (request == WDIOC_SETTIMEOUT)
        question.value = *(int *)argument;
    if (send(fd, &question, sizeof question, 0) != sizeof question
        || recv(fd, &answer, sizeof answer, 0) != sizeof answer) {
        errno = EIO;
        return -1;
    }
    if (answer.error != 0) {
        errno = (int)answer.error;
        return -1;
    }
    if (request == WDIOC_GETSUPPORT)
        *(struct watchdog_info *)argument = answer.info;
    else
        *(int *)argument = (int)answer.value;
    return 0;
}
