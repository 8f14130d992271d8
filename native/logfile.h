/* A module's log: lines go in without ever waiting, a thread writes and rotates them.
 *
 *     <unix_ms> o|e <text>\n
 *
 * Lines that the disk does not take, or not fast enough, are dropped, counted, and owned up to by a line of the
 * runner's own as soon as it takes some again. FILE becomes FILE.1, FILE.1 becomes FILE.2, as many as are kept. */
#ifndef OUTLIVE_LOGFILE_H
#define OUTLIVE_LOGFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct logfile_options {
    const char *path;
    uint64_t most_bytes; /* of one file; a single longer line is written all the same */
    unsigned keep;       /* how many old files; 0: the file is emptied instead */
};

/* Starts the thread; false and errno when it cannot. Signals should be held back by then. */
bool logfile_start(struct logfile_options options);

/* stream: 'o' or 'e'. The text has no newline in it; any other byte is kept as it is. */
void logfile_add(char stream, const char *text, size_t size);

/* Waits until all is written, but no longer than this. */
void logfile_finish(int most_ms);

#endif
