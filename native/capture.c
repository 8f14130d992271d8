#define _GNU_SOURCE
#include "capture.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "logfile.h"
#include "process.h"

enum { MOST_AT_ONCE_BYTES = 256 * 1024, READ_BYTES = 16 * 1024 };

static void pass_on(struct capture *capture, bool ended)
{
    logfile_add(capture->stream, capture->line, capture->used);
    capture->used = 0;
    capture->in_pieces = !ended;
}

static void hold(struct capture *capture, const char *bytes, size_t size)
{
    while (size > 0) {
        size_t room = sizeof capture->line - capture->used;
        size_t held = size < room ? size : room;
        if (capture->used == 0)
            capture->since_ns = boottime_ns();
        memcpy(capture->line + capture->used, bytes, held);
        capture->used += held;
        bytes += held;
        size -= held;
        if (capture->used == sizeof capture->line)
            pass_on(capture, false);
    }
}

static void cut(struct capture *capture, const char *bytes, size_t size)
{
    const char *end;

    while ((end = memchr(bytes, '\n', size)) != NULL) {
        size_t length = (size_t)(end - bytes);
        hold(capture, bytes, length);
        /* The newline of a line that was passed on in pieces makes no empty line. */
        if (capture->used > 0 || !capture->in_pieces)
            pass_on(capture, true);
        capture->in_pieces = false;
        bytes += length + 1;
        size -= length + 1;
    }
    hold(capture, bytes, size);
}

void capture_read(struct capture *capture)
{
    char bytes[READ_BYTES];
    size_t total = 0;

    while (capture->fd >= 0 && total < MOST_AT_ONCE_BYTES) {
        ssize_t got = read(capture->fd, bytes, sizeof bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) {
            capture_flush(capture, 0, true);
            close(capture->fd);
            capture->fd = -1;
            return;
        }
        total += (size_t)got;
        cut(capture, bytes, (size_t)got);
    }
}

void capture_flush(struct capture *capture, int64_t now_ns, bool all)
{
    if (capture->used > 0 && (all || now_ns - capture->since_ns >= CAPTURE_PATIENCE_MS * NS_PER_MS))
        pass_on(capture, false);
}

int capture_patience_ms(const struct capture *capture, int64_t now_ns)
{
    if (capture->used == 0)
        return -1;
    int64_t left_ns = capture->since_ns + CAPTURE_PATIENCE_MS * NS_PER_MS - now_ns;
    return left_ns <= 0 ? 0 : (int)(left_ns / NS_PER_MS) + 1;
}
