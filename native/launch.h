/* Becoming a module: everything between fork and exec. What goes wrong is told to the parent as one sentence. */
#ifndef OUTLIVE_LAUNCH_H
#define OUTLIVE_LAUNCH_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/types.h>

enum { MOST_CGROUPS = 8, MOST_LIMITS = 16, MOST_GROUPS = 64, LAUNCH_SENTENCE_BYTES = 512 };

struct launch_limit {
    int resource;
    const char *name;
    struct rlimit limit;
};

struct launch {
    char *const *words; /* the program and its arguments, and a null pointer */
    char **environment; /* null: the runner's own */
    const char *folder; /* null: the runner's own */
    const char *cgroup[MOST_CGROUPS];
    unsigned cgroups;
    struct launch_limit limit[MOST_LIMITS];
    unsigned limits;
    bool as_user;
    uid_t user;
    gid_t group;
    gid_t groups[MOST_GROUPS];
    size_t group_count;
    int oom_score;
};

/* NAME=SOFT:HARD, NAME in lower case without RLIMIT_, numbers or "infinity". Spoils `text`. */
bool launch_limit_parse(char *text, struct launch_limit *limit);

/* Reads NAME=VALUE words, each ended by a zero byte. The result lives as long as the process; null and errno. */
char **launch_environment_read(const char *path);

/* Runs in the child; never returns. On failure writes its sentence to `tell` and ends with 127. */
_Noreturn void launch_become(const struct launch *launch, pid_t parent, int out, int err, int tell);

#endif
