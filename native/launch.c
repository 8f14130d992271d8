#define _GNU_SOURCE
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cgroup.h"
#include "process.h"

enum { MOST_ENVIRONMENT_BYTES = 1024 * 1024, EXIT_NOT_RUN = 127 };

static const struct {
    const char *name;
    int resource;
} resources[] = {
    { "as", RLIMIT_AS },           { "core", RLIMIT_CORE },     { "cpu", RLIMIT_CPU },
    { "data", RLIMIT_DATA },       { "fsize", RLIMIT_FSIZE },   { "memlock", RLIMIT_MEMLOCK },
    { "nice", RLIMIT_NICE },       { "nofile", RLIMIT_NOFILE }, { "nproc", RLIMIT_NPROC },
    { "rtprio", RLIMIT_RTPRIO },   { "stack", RLIMIT_STACK },   { "sigpending", RLIMIT_SIGPENDING },
    { "msgqueue", RLIMIT_MSGQUEUE },
};

static bool limit_number(const char *text, rlim_t *value)
{
    uint64_t number;

    if (strcmp(text, "infinity") == 0) {
        *value = RLIM_INFINITY;
        return true;
    }
    if (!number_parse(text, INT64_MAX, &number))
        return false;
    *value = number;
    return true;
}

bool launch_limit_parse(char *text, struct launch_limit *limit)
{
    char *soft = strchr(text, '=');
    char *hard = soft == NULL ? NULL : strchr(soft, ':');

    if (hard == NULL)
        return false;
    *soft++ = '\0';
    *hard++ = '\0';
    for (size_t i = 0; i < sizeof resources / sizeof resources[0]; i++)
        if (strcmp(resources[i].name, text) == 0) {
            limit->resource = resources[i].resource;
            limit->name = resources[i].name;
            return limit_number(soft, &limit->limit.rlim_cur) && limit_number(hard, &limit->limit.rlim_max)
                && limit->limit.rlim_cur <= limit->limit.rlim_max;
        }
    return false;
}

char **launch_environment_read(const char *path)
{
    static char text[MOST_ENVIRONMENT_BYTES];
    ssize_t size = file_read(AT_FDCWD, path, text, sizeof text);
    size_t count = 0;

    if (size < 0)
        return NULL;
    if ((size_t)size == sizeof text - 1) {
        errno = E2BIG;
        return NULL;
    }
    /* file_read has put a zero behind the last word, should it lack its own. */
    for (char *word = text; word < text + size; word += strlen(word) + 1) {
        if (strchr(word, '=') == NULL) {
            errno = EINVAL;
            return NULL;
        }
        count++;
    }
    char **environment = calloc(count + 1, sizeof *environment);
    if (environment == NULL)
        return NULL;
    count = 0;
    for (char *word = text; word < text + size; word += strlen(word) + 1)
        environment[count++] = word;
    return environment;
}

static _Noreturn void __attribute__((format(printf, 2, 3))) give_up(int tell, const char *format, ...)
{
    char sentence[LAUNCH_SENTENCE_BYTES];
    int error = errno;
    va_list arguments;

    va_start(arguments, format);
    int length = vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    if (length < 0)
        length = 0;
    if ((size_t)length > sizeof sentence - 1)
        length = (int)sizeof sentence - 1;
    if (error != 0 && strerrordesc_np(error) != NULL)
        snprintf(sentence + length, sizeof sentence - (size_t)length, ": %s", strerrordesc_np(error));
    (void)write_all(tell, sentence, strlen(sentence));
    _exit(EXIT_NOT_RUN);
}

static void enter_cgroups(const struct launch *launch, int tell)
{
    for (unsigned i = 0; i < launch->cgroups; i++)
        if (!cgroup_enter(launch->cgroup[i]))
            give_up(tell, "cannot enter the cgroup %s", launch->cgroup[i]);
}

static void take_limits(const struct launch *launch, int tell)
{
    for (unsigned i = 0; i < launch->limits; i++)
        if (setrlimit((__rlimit_resource_t)launch->limit[i].resource, &launch->limit[i].limit) != 0)
            give_up(tell, "cannot set the limit %s", launch->limit[i].name);
    /* Whether it can be killed first or last when memory runs out is a module's own matter, not the runner's. */
    (void)oom_score_write(launch->oom_score);
}

static void take_identity(const struct launch *launch, int tell)
{
    if (!launch->as_user)
        return;
    if (setgroups(launch->group_count, launch->groups) != 0)
        give_up(tell, "cannot take the supplementary groups");
    if (setresgid(launch->group, launch->group, launch->group) != 0)
        give_up(tell, "cannot become the group %u", launch->group);
    if (setresuid(launch->user, launch->user, launch->user) != 0)
        give_up(tell, "cannot become the user %u", launch->user);
}

static void take_signals(int tell)
{
    sigset_t none;

    for (int number = 1; number < NSIG; number++)
        (void)signal(number, SIG_DFL); /* some cannot be changed, and need not be */
    sigemptyset(&none);
    if (sigprocmask(SIG_SETMASK, &none, NULL) != 0)
        give_up(tell, "cannot let signals through");
}

/* The runner's descriptors end with exec, also those that it was given without knowing. */
static void take_descriptors(int out, int err, int tell)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    if (null < 0 || dup2(null, STDIN_FILENO) < 0)
        give_up(tell, "cannot read /dev/null");
    if (dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
        give_up(tell, "cannot attach the output");
    (void)close_range(3, ~0U, CLOSE_RANGE_CLOEXEC); /* all that the runner opened has it already */
}

_Noreturn void launch_become(const struct launch *launch, pid_t parent, int out, int err, int tell)
{
    if (setsid() < 0)
        give_up(tell, "cannot make a session");
    umask(022);
    enter_cgroups(launch, tell);
    take_descriptors(out, err, tell);
    take_limits(launch, tell);
    take_identity(launch, tell);
    /* After the change of user, which would clear it. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        give_up(tell, "cannot be made to end with the runner");
    errno = 0;
    if (getppid() != parent)
        give_up(tell, "the runner ended");
    /* As the module's user, because a folder on shared storage may be closed to root. */
    if (launch->folder != NULL && chdir(launch->folder) != 0)
        give_up(tell, "cannot enter the folder %s", launch->folder);
    take_signals(tell);
    if (launch->environment != NULL)
        environ = launch->environment;
    execvp(launch->words[0], launch->words);
    give_up(tell, "cannot run %s", launch->words[0]);
}
