#define _GNU_SOURCE
#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "process.h"

enum { LINE_BYTES = 1024 };

static int journal_fd = -1;
static uint64_t dropped;

/* Lives until the last writer is gone. */
static void write_until_closed(int from)
{
    char bytes[4096];
    ssize_t got;

    (void)prctl(PR_SET_NAME, "outlive-journal");
    while ((got = read(from, bytes, sizeof bytes)) > 0 || (got < 0 && errno == EINTR))
        if (got > 0)
            (void)write_all(STDERR_FILENO, bytes, (size_t)got); /* a full disk: later lines may fit again */
    _exit(0);
}

bool journal_start(void)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    pid_t child = fork();
    if (child < 0)
        return false;
    if (child == 0) {
        if (!streams_close(false) || dup2(ends[0], STDIN_FILENO) < 0)
            _exit(EXIT_FAILED);
        descriptors_close(-1);
        signal(SIGTERM, SIG_IGN);
        signal(SIGINT, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
        write_until_closed(STDIN_FILENO);
    }
    close(ends[0]);
    journal_fd = ends[1];
    return fcntl(journal_fd, F_SETFL, O_NONBLOCK) == 0;
}

static bool put(const char *line, size_t length)
{
    /* Lines are shorter than PIPE_BUF, so each goes in whole or not at all. */
    return journal_fd >= 0 && write(journal_fd, line, length) == (ssize_t)length;
}

void journal_note(const char *format, ...)
{
    char line[LINE_BYTES];
    va_list arguments;
    int64_t now_ns = boottime_ns();

    if (dropped > 0) {
        int length = snprintf(line, sizeof line, "journal.dropped lines=%" PRIu64 " boottime_ns=%" PRId64 "\n",
                              dropped, now_ns);
        if (length > 0 && put(line, (size_t)length))
            dropped = 0;
    }
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 40, format, arguments);
    va_end(arguments);
    if (length < 0)
        return;
    if ((size_t)length >= sizeof line - 40)
        length = (int)sizeof line - 41;
    length += snprintf(line + length, sizeof line - (size_t)length, " boottime_ns=%" PRId64 "\n", now_ns);
    if (!put(line, (size_t)length))
        dropped++;
}
