/* A process that waits for the runner's death and then kills what is left of the module.
 *
 * The kernel kills the module's first process with the runner, but not those that it started; with the agent
 * dead too, nobody else would. */
#ifndef OUTLIVE_MOURNER_H
#define OUTLIVE_MOURNER_H

#include <stdbool.h>

#include "cgroup.h"

/* kept_fd: the lock of the state folder, which it holds too, so that no other runner starts the module before it is
 * done. False and errno when it cannot be started. */
bool mourner_start(struct cgroup *cgroup, int kept_fd);

/* It is not needed any more: lets it end, and waits for that a moment. */
void mourner_dismiss(void);

/* Kills all in the cgroup until it is empty, giving up after this long; true when it is. */
bool mourner_clear(struct cgroup *cgroup, int most_ms);

#endif
