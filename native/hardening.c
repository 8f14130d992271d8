#define _GNU_SOURCE
#include "hardening.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#include "process.h"

enum {
    STACK_TOUCHED_BYTES = 128 * 1024,
    OOM_NEVER = -1000,
};

void harden(int wanted, char *told, size_t size)
{
    char memory[32] = "locked";
    char priority[48] = "normal";
    char oom[32] = "-1000";
    struct sched_param param = { .sched_priority = wanted };
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files); /* the table is then smaller, which PROTECT tells */
    }
    if (!oom_score_write(OOM_NEVER))
        snprintf(oom, sizeof oom, "%s", strerrorname_np(errno));
    if (wanted > 0 && sched_setscheduler(0, SCHED_FIFO, &param) != 0) {
        snprintf(priority, sizeof priority, "%s", strerrorname_np(errno));
        (void)setpriority(PRIO_PROCESS, 0, -20); /* second best; HELLO says that it is not the best */
    } else if (wanted > 0) {
        snprintf(priority, sizeof priority, "fifo:%d", wanted);
    }
    (void)prctl(PR_SET_TIMERSLACK, 1);
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
        snprintf(memory, sizeof memory, "%s", strerrorname_np(errno));
    snprintf(told, size, "memory=%s priority=%s oom=%s", memory, priority, oom);
}

void __attribute__((noinline)) stack_touch(void)
{
    volatile char pages[STACK_TOUCHED_BYTES];

    for (size_t at = 0; at < sizeof pages; at += 1024)
        pages[at] = 0;
}

int signals_hold(void)
{
    sigset_t held;

    sigfillset(&held);
    sigdelset(&held, SIGSEGV);
    sigdelset(&held, SIGBUS);
    sigdelset(&held, SIGFPE);
    sigdelset(&held, SIGILL);
    sigdelset(&held, SIGABRT);
    if (signal(SIGCHLD, SIG_IGN) == SIG_ERR || sigprocmask(SIG_SETMASK, &held, NULL) != 0)
        return -1;
    return signalfd(-1, &held, SFD_CLOEXEC | SFD_NONBLOCK);
}
