#define _GNU_SOURCE
#include "mourner.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "process.h"

enum { CLEAR_MS = 10000, DISMISSED_MS = 300, PAUSE_MS = 2 };

static int life_fd = -1;
static pid_t mourner;

static void pause_ms(int ms)
{
    struct timespec pause = { .tv_nsec = ms * NS_PER_MS };

    (void)nanosleep(&pause, NULL);
}

bool mourner_clear(struct cgroup *cgroup, int most_ms)
{
    int64_t until_ns = boottime_ns() + most_ms * NS_PER_MS;

    while (cgroup_state(cgroup) != CGROUP_EMPTY) {
        cgroup_kill(cgroup, false);
        if (boottime_ns() >= until_ns)
            return false;
        pause_ms(PAUSE_MS);
    }
    return true;
}

static _Noreturn void mourn(struct cgroup *cgroup, int life)
{
    char dismissal;
    ssize_t got;

    (void)prctl(PR_SET_NAME, "outlive-mourner");
    do
        got = read(life, &dismissal, 1);
    while (got < 0 && errno == EINTR);
    if (got != 1)
        (void)mourner_clear(cgroup, CLEAR_MS);
    _exit(0);
}

bool mourner_start(struct cgroup *cgroup, int kept_fd)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    mourner = fork();
    if (mourner < 0)
        return false;
    if (mourner == 0) {
        if (!streams_close(true) || dup2(ends[0], STDIN_FILENO) < 0)
            _exit(EXIT_FAILED);
        descriptors_close(kept_fd);
        cgroup->kill_fd = cgroup->events_fd = -1;
        mourn(cgroup, STDIN_FILENO);
    }
    close(ends[0]);
    life_fd = ends[1];
    return true;
}

void mourner_dismiss(void)
{
    if (life_fd < 0)
        return;
    if (write_all(life_fd, "x", 1))
        for (int waited_ms = 0; waited_ms < DISMISSED_MS; waited_ms += PAUSE_MS) {
            if (waitpid(mourner, NULL, WNOHANG) != 0)
                break;
            pause_ms(PAUSE_MS);
        }
    close(life_fd);
    life_fd = -1;
}
