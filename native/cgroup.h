/* One cgroup of the unified hierarchy: entering it, killing all in it, and being sure that nothing is left.
 * Its files are opened beforehand, so that the moment of killing needs no look-up of names; a cgroup that was
 * removed and made again under its name is opened anew. No function allocates. */
#ifndef OUTLIVE_CGROUP_H
#define OUTLIVE_CGROUP_H

#include <stdbool.h>
#include <sys/types.h>

enum { CGROUP_PATH_BYTES = 512 };

struct cgroup {
    char path[CGROUP_PATH_BYTES];
    int kill_fd;   /* -1: the kernel is older than 5.14, or it is to be opened again */
    int events_fd;
};

enum cgroup_state { CGROUP_EMPTY, CGROUP_POPULATED, CGROUP_UNKNOWN };

/* Null when it is open; else the reason why not. `path` is absolute. */
const char *cgroup_open(struct cgroup *cgroup, const char *path);
void cgroup_close(struct cgroup *cgroup);

/* Sends SIGKILL to everything in it and below, at once; death follows on its own, so ask cgroup_state.
 * one_by_one: without cgroup.kill, as on old kernels; it has to be repeated until empty. */
void cgroup_kill(struct cgroup *cgroup, bool one_by_one);

/* The same for all but what is in the child `spared`; true when nothing but that is left. */
bool cgroup_kill_sparing(const struct cgroup *cgroup, const char *spared, bool one_by_one);

/* Empty also when it no longer exists. */
enum cgroup_state cgroup_state(struct cgroup *cgroup);

/* Is this process in it or below? True also when that cannot be told. */
bool cgroup_holds(const struct cgroup *cgroup, pid_t pid);

/* Moves the calling process into it, of whatever hierarchy; false and errno when it cannot. */
bool cgroup_enter(const char *path);

#endif
