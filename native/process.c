#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int64_t boottime_ns(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_BOOTTIME, &now) != 0)
        return INT64_MAX;
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t unix_ms(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_REALTIME, &now) != 0)
        return 0;
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / NS_PER_MS;
}

static bool lower_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool name_valid(const char *name)
{
    size_t length = strlen(name);

    if (length < 1 || length > NAME_MAX_BYTES || !lower_or_digit(name[0]))
        return false;
    for (size_t i = 1; i < length; i++)
        if (!lower_or_digit(name[i]) && name[i] != '-')
            return false;
    return true;
}

bool number_parse(const char *text, uint64_t most, uint64_t *value)
{
    uint64_t total = 0;

    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return false;
        uint64_t digit = (uint64_t)(*text - '0');
        if (total > (UINT64_MAX - digit) / 10)
            return false;
        total = total * 10 + digit;
    }
    if (total > most)
        return false;
    *value = total;
    return true;
}

ssize_t file_read(int folder, const char *path, char *text, size_t size)
{
    int fd = openat(folder, path, O_RDONLY | O_CLOEXEC);
    size_t total = 0;

    if (fd < 0)
        return -1;
    while (total < size - 1) {
        ssize_t got = read(fd, text + total, size - 1 - total);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int error = errno;
            close(fd);
            errno = error;
            return -1;
        }
        if (got == 0)
            break;
        total += (size_t)got;
    }
    close(fd);
    text[total] = '\0';
    return (ssize_t)total;
}

uint64_t start_ticks(pid_t pid)
{
    char path[32];
    char text[1024];

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (file_read(AT_FDCWD, path, text, sizeof text) <= 0)
        return 0;
    /* The second field is the program's own choice of name and may hold spaces and brackets. */
    char *field = strrchr(text, ')');
    if (field == NULL)
        return 0;
    for (int number = 2; number < 22; number++) {
        field = strchr(field + 1, ' ');
        if (field == NULL)
            return 0;
    }
    return strtoull(field + 1, NULL, 10);
}

bool boot_id_read(char id[BOOT_ID_BYTES + 1])
{
    char text[BOOT_ID_BYTES + 4];

    if (file_read(AT_FDCWD, "/proc/sys/kernel/random/boot_id", text, sizeof text) < BOOT_ID_BYTES)
        return false;
    memcpy(id, text, BOOT_ID_BYTES);
    id[BOOT_ID_BYTES] = '\0';
    return strspn(id, "0123456789abcdef-") == BOOT_ID_BYTES;
}

bool write_all(int fd, const void *bytes, size_t size)
{
    const char *rest = bytes;

    while (size > 0) {
        ssize_t put = write(fd, rest, size);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return false;
        rest += put;
        size -= (size_t)put;
    }
    return true;
}

bool file_replace(const char *folder, const char *name, const char *text)
{
    char fresh[256];
    bool done = false;
    int at = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (at < 0)
        return false;
    if (snprintf(fresh, sizeof fresh, ".%s.new", name) >= (int)sizeof fresh) {
        close(at);
        errno = ENAMETOOLONG;
        return false;
    }
    int fd = openat(at, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0640);
    if (fd >= 0) {
        done = write_all(fd, text, strlen(text));
        done = close(fd) == 0 && done;
        done = done && renameat(at, fresh, at, name) == 0;
    }
    int error = errno;
    close(at);
    errno = error;
    return done;
}

void ready_say(int *ready_fd, int otherwise, const char *format, ...)
{
    char line[1024];
    va_list arguments;

    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (length < 0)
        return;
    if ((size_t)length > sizeof line - 2)
        length = (int)sizeof line - 2;
    line[length] = '\n';
    /* A starter that has gone is no reason to stop: it will ask again, or another will. */
    (void)write_all(*ready_fd >= 0 ? *ready_fd : otherwise, line, (size_t)length + 1);
    if (*ready_fd >= 0)
        close(*ready_fd);
    *ready_fd = -1;
}

static void close_from_to(unsigned first, unsigned last)
{
    if (first > last || close_range(first, last, 0) == 0)
        return;
    long most = sysconf(_SC_OPEN_MAX);
    for (unsigned fd = first; fd <= last && fd < (unsigned long)(most > 0 ? most : 1024); fd++)
        close((int)fd);
}

void descriptors_close(int keep)
{
    if (keep < 3) {
        close_from_to(3, ~0U);
        return;
    }
    close_from_to(3, (unsigned)keep - 1);
    close_from_to((unsigned)keep + 1, ~0U);
}

bool streams_close(bool error_too)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null < 0)
        return false;
    bool closed = dup2(null, STDIN_FILENO) >= 0 && dup2(null, STDOUT_FILENO) >= 0;
    closed = closed && (!error_too || dup2(null, STDERR_FILENO) >= 0);
    if (null > STDERR_FILENO)
        close(null);
    return closed;
}

bool descriptor_parse(const char *text, int *fd)
{
    uint64_t number;

    if (!number_parse(text, 1 << 20, &number) || fcntl((int)number, F_SETFD, FD_CLOEXEC) != 0)
        return false;
    *fd = (int)number;
    return true;
}

bool oom_score_read(int *score)
{
    char text[16];

    if (file_read(AT_FDCWD, "/proc/self/oom_score_adj", text, sizeof text) <= 0)
        return false;
    *score = atoi(text);
    return true;
}

bool oom_score_write(int score)
{
    char text[16];
    int length = snprintf(text, sizeof text, "%d", score);
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return false;
    bool written = write_all(fd, text, (size_t)length);
    int error = errno;
    close(fd);
    errno = error;
    return written;
}
