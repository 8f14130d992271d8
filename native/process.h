/* What each of the native programs needs to know about processes: who one is (pid and start time, since
 * pids are used again), what time it is on the boot clock, and how a starter is told "ready" or why not.
 * Nothing here knows what a workload or a guard is. No function allocates. */
#ifndef OUTLIVE_PROCESS_H
#define OUTLIVE_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    NAME_MAX_BYTES = 63,
    BOOT_ID_BYTES = 36,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_REFUSED = 3,
};

#define NS_PER_S INT64_C(1000000000)
#define NS_PER_MS INT64_C(1000000)

/* Nanoseconds since the kernel started, counting suspended time. INT64_MAX should the clock fail: whoever waits
 * for a deadline then holds it to have passed. */
int64_t boottime_ns(void);

/* Milliseconds since 1970, for people who read logs; never for a decision. */
int64_t unix_ms(void);

/* [a-z0-9][a-z0-9-]{0,62} */
bool name_valid(const char *name);

/* Decimal digits only, at most `most`. */
bool number_parse(const char *text, uint64_t most, uint64_t *value);

/* Field 22 of /proc/PID/stat; 0 when there is no such process. */
uint64_t start_ticks(pid_t pid);

/* Exactly BOOT_ID_BYTES characters and a zero; false when the kernel does not tell. */
bool boot_id_read(char id[BOOT_ID_BYTES + 1]);

/* Reads at most size-1 bytes of a small file and ends them with a zero; -1 and errno on failure. */
ssize_t file_read(int folder, const char *path, char *text, size_t size);

bool write_all(int fd, const void *bytes, size_t size);

/* Puts `text` where `folder`/`name` was, so that a reader sees the old or the new whole. It is not synced: what is
 * told about processes means nothing after a power cut, and a slow disk should not delay it. */
bool file_replace(const char *folder, const char *name, const char *text);

/* Tells the starter one line on its descriptor and closes it; without a descriptor, says it on `otherwise`. */
void ready_say(int *ready_fd, int otherwise, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Closes every descriptor from 3 on, but `keep` (-1: none). */
void descriptors_close(int keep);

/* Lets go of the starter's terminal or pipes: input, output and (with `error_too`) errors become /dev/null. */
bool streams_close(bool error_too);

/* The number of an inherited descriptor that is open, for an option's value. It is marked close-on-exec. */
bool descriptor_parse(const char *text, int *fd);

/* oom_score_adj of the calling process. */
bool oom_score_write(int score);
bool oom_score_read(int *score);

#endif
