/* Cutting what a module writes into lines. A line too long is cut into pieces; one that is not ended within
 * a moment is passed on as it is, so that a prompt is seen while the module waits. */
#ifndef OUTLIVE_CAPTURE_H
#define OUTLIVE_CAPTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CAPTURE_LINE_BYTES = 8192, CAPTURE_PATIENCE_MS = 200 };

struct capture {
    int fd; /* not blocking; -1 once it has ended */
    char stream;
    bool in_pieces; /* the present line has been passed on in part */
    size_t used;
    int64_t since_ns; /* when the first of what is held came */
    char line[CAPTURE_LINE_BYTES];
};

/* Reads what is there, up to a bound. */
void capture_read(struct capture *capture);

/* Passes on what has waited long enough, or with `all` whatever waits. */
void capture_flush(struct capture *capture, int64_t now_ns, bool all);

/* Milliseconds until capture_flush has something to do; -1: nothing waits. */
int capture_patience_ms(const struct capture *capture, int64_t now_ns);

#endif
