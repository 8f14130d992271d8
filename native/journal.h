/* Lines for a log that may never hold up the one who writes them: they go through a pipe to a process of their
 * own, which alone waits for the disk. What does not fit in the pipe is dropped, counted, and owned up to. */
#ifndef OUTLIVE_JOURNAL_H
#define OUTLIVE_JOURNAL_H

#include <stdbool.h>

/* Starts the process that writes to standard error; false and errno when it cannot. To be called before any
 * thread, lock in memory or priority that it should not have. */
bool journal_start(void);

/* One line: an event in the past tense and its fields; the time on the boot clock is put behind it. */
void journal_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
