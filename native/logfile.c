#define _GNU_SOURCE
#include "logfile.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "process.h"

enum { BUFFER_BYTES = 512 * 1024, HEAD_BYTES = 32 };

#define RETRY_NS (1 * NS_PER_S)

/* Between the one who adds and the thread. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    char buffer[2][BUFFER_BYTES];
    int filling; /* the one being added to; the other is the thread's */
    size_t used;
    uint64_t lost_lines;
    uint64_t lost_bytes;
    bool finishing;
    bool finished;
} shared = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* The thread's own. */
static struct {
    struct logfile_options options;
    int fd;
    uint64_t size;
    uint64_t lost_lines;
    uint64_t lost_bytes;
    int why; /* errno; 0: the disk was too slow */
    int64_t retry_ns;
} file = { .fd = -1 };

void logfile_add(char stream, const char *text, size_t size)
{
    char head[HEAD_BYTES];
    int headed = snprintf(head, sizeof head, "%" PRId64 " %c ", unix_ms(), stream);

    assert(headed > 0 && headed < HEAD_BYTES);
    pthread_mutex_lock(&shared.lock);
    if (shared.used + (size_t)headed + size + 1 > BUFFER_BYTES) {
        shared.lost_lines++;
        shared.lost_bytes += size;
    } else {
        char *at = shared.buffer[shared.filling] + shared.used;
        memcpy(at, head, (size_t)headed);
        memcpy(at + headed, text, size);
        at[(size_t)headed + size] = '\n';
        shared.used += (size_t)headed + size + 1;
    }
    pthread_cond_broadcast(&shared.changed);
    pthread_mutex_unlock(&shared.lock);
}

static void lose(const char *lines, size_t size)
{
    file.lost_bytes += size;
    for (size_t i = 0; i < size; i++)
        file.lost_lines += lines[i] == '\n';
}

static void fail(void)
{
    file.why = errno;
    file.retry_ns = boottime_ns() + RETRY_NS;
    if (file.fd >= 0)
        close(file.fd);
    file.fd = -1;
}

/* The file open, and of a known size; false when that cannot be had. */
static bool have_file(void)
{
    struct stat status;

    if (file.fd >= 0 && fstat(file.fd, &status) == 0 && status.st_nlink > 0)
        return true;
    if (file.fd >= 0)
        close(file.fd); /* someone removed it */
    file.fd = open(file.options.path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0640);
    if (file.fd < 0 || fstat(file.fd, &status) != 0)
        return false;
    file.size = (uint64_t)status.st_size;
    return true;
}

static bool rotate(void)
{
    char older[PATH_MAX];
    char newer[PATH_MAX];

    if (file.options.keep == 0) {
        if (ftruncate(file.fd, 0) != 0)
            return false;
        file.size = 0;
        return true;
    }
    for (unsigned number = file.options.keep; number > 0; number--) {
        int length = snprintf(older, sizeof older, "%s.%u", file.options.path, number);
        if (length < 0 || (size_t)length >= sizeof older) {
            errno = ENAMETOOLONG;
            return false;
        }
        if (number > 1)
            snprintf(newer, sizeof newer, "%s.%u", file.options.path, number - 1);
        else
            snprintf(newer, sizeof newer, "%s", file.options.path);
        if (rename(newer, older) != 0 && errno != ENOENT)
            return false;
    }
    close(file.fd);
    file.fd = -1;
    return have_file();
}

/* Writes whole lines or none of the last: what was begun and did not fit is cut off again. */
static size_t write_lines(const char *lines, size_t size)
{
    size_t put = 0;

    while (put < size) {
        ssize_t got = write(file.fd, lines + put, size - put);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            break;
        put += (size_t)got;
    }
    if (put < size) {
        int error = errno;
        while (put > 0 && lines[put - 1] != '\n')
            put--;
        if (ftruncate(file.fd, (off_t)(file.size + put)) != 0)
            (void)!write(file.fd, "\n", 1); /* at least the next line begins a line */
        errno = error;
    }
    file.size += put;
    return put;
}

/* How many bytes of whole lines fit into `room`; the first line always when `at_least_one`. */
static size_t lines_fitting(const char *lines, size_t size, uint64_t room, bool at_least_one)
{
    size_t fitting = 0;

    while (fitting < size) {
        const char *end = memchr(lines + fitting, '\n', size - fitting);
        assert(end != NULL);
        size_t next = (size_t)(end - lines) + 1;
        if (next > room && !(at_least_one && fitting == 0))
            break;
        fitting = next;
    }
    return fitting;
}

static bool put_lines(const char *lines, size_t size, size_t *put)
{
    for (*put = 0; *put < size;) {
        if (!have_file())
            return false;
        uint64_t room = file.options.most_bytes > file.size ? file.options.most_bytes - file.size : 0;
        size_t fitting = lines_fitting(lines + *put, size - *put, room, file.size == 0);
        if (fitting == 0) {
            if (!rotate())
                return false;
            continue;
        }
        size_t written = write_lines(lines + *put, fitting);
        *put += written;
        if (written < fitting)
            return false;
    }
    return true;
}

static bool own_up(void)
{
    char line[256];
    size_t put;

    if (file.lost_lines == 0)
        return true;
    int length = snprintf(line, sizeof line,
                          "%" PRId64 " e [outlive] %" PRIu64 " lines (%" PRIu64 " bytes) of output were lost: %s\n",
                          unix_ms(), file.lost_lines, file.lost_bytes,
                          file.why == 0 ? "the disk was too slow" : strerrordesc_np(file.why));
    if (length < 0 || (size_t)length >= sizeof line)
        length = snprintf(line, sizeof line, "%" PRId64 " e [outlive] output was lost\n", unix_ms());
    if (!put_lines(line, (size_t)length, &put))
        return false;
    file.lost_lines = file.lost_bytes = 0;
    file.why = 0;
    return true;
}

static void take_lines(const char *lines, size_t size, bool finishing)
{
    size_t put = 0;

    if (file.why != 0 && boottime_ns() < file.retry_ns && !finishing) {
        lose(lines, size);
        return;
    }
    if (!own_up() || !put_lines(lines, size, &put)) {
        fail();
        lose(lines + put, size - put);
    }
}

static void wait_for_lines(void)
{
    struct timespec until;
    bool owing = file.lost_lines > 0;

    while (shared.used == 0 && shared.lost_lines == 0 && !shared.finishing) {
        if (!owing) {
            pthread_cond_wait(&shared.changed, &shared.lock);
            continue;
        }
        if (clock_gettime(CLOCK_MONOTONIC, &until) != 0)
            return;
        until.tv_sec += 1;
        if (pthread_cond_timedwait(&shared.changed, &shared.lock, &until) == ETIMEDOUT)
            return;
    }
}

static void *work(void *unused)
{
    (void)unused;
    for (bool finishing = false; !finishing;) {
        pthread_mutex_lock(&shared.lock);
        wait_for_lines();
        const char *lines = shared.buffer[shared.filling];
        size_t size = shared.used;
        shared.filling = !shared.filling;
        shared.used = 0;
        file.lost_lines += shared.lost_lines;
        file.lost_bytes += shared.lost_bytes;
        shared.lost_lines = shared.lost_bytes = 0;
        finishing = shared.finishing;
        pthread_mutex_unlock(&shared.lock);
        take_lines(lines, size, finishing);
    }
    pthread_mutex_lock(&shared.lock);
    shared.finished = true;
    pthread_cond_broadcast(&shared.changed);
    pthread_mutex_unlock(&shared.lock);
    return NULL;
}

bool logfile_start(struct logfile_options options)
{
    pthread_condattr_t attributes;
    pthread_t thread;
    int error;

    file.options = options;
    error = pthread_condattr_init(&attributes);
    if (error == 0)
        error = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    if (error == 0)
        error = pthread_cond_init(&shared.changed, &attributes);
    if (error == 0)
        error = pthread_create(&thread, NULL, work, NULL);
    if (error == 0)
        error = pthread_detach(thread);
    errno = error;
    return error == 0;
}

void logfile_finish(int most_ms)
{
    struct timespec until;

    if (clock_gettime(CLOCK_MONOTONIC, &until) != 0)
        return;
    until.tv_sec += most_ms / 1000;
    until.tv_nsec += (most_ms % 1000) * NS_PER_MS;
    if (until.tv_nsec >= NS_PER_S) {
        until.tv_sec++;
        until.tv_nsec -= NS_PER_S;
    }
    pthread_mutex_lock(&shared.lock);
    shared.finishing = true;
    pthread_cond_broadcast(&shared.changed);
    while (!shared.finished)
        if (pthread_cond_timedwait(&shared.changed, &shared.lock, &until) != 0)
            break;
    pthread_mutex_unlock(&shared.lock);
}
