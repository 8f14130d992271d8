#define _GNU_SOURCE
#include "cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "process.h"

enum { DEEPEST = 16 };

static bool file_in(const struct cgroup *cgroup, const char *name, int flags, int *fd)
{
    char path[CGROUP_PATH_BYTES + 32];

    snprintf(path, sizeof path, "%s/%s", cgroup->path, name);
    *fd = open(path, flags | O_CLOEXEC);
    return *fd >= 0;
}

const char *cgroup_open(struct cgroup *cgroup, const char *path)
{
    struct statfs filesystem;

    cgroup->kill_fd = cgroup->events_fd = -1;
    if (path[0] != '/' || strlen(path) >= sizeof cgroup->path)
        return "the cgroup must be an absolute path of at most 511 bytes";
    memcpy(cgroup->path, path, strlen(path) + 1);
    if (statfs(path, &filesystem) != 0)
        return "the cgroup does not exist";
    if (filesystem.f_type != CGROUP2_SUPER_MAGIC)
        return "the cgroup is not in a cgroup2 file system";
    if (!file_in(cgroup, "cgroup.events", O_RDONLY, &cgroup->events_fd))
        return errno == ENOENT ? "the root cgroup cannot be killed" : "cgroup.events cannot be opened";
    if (!file_in(cgroup, "cgroup.kill", O_WRONLY, &cgroup->kill_fd) && errno != ENOENT) {
        cgroup_close(cgroup);
        return "cgroup.kill cannot be opened";
    }
    return NULL;
}

void cgroup_close(struct cgroup *cgroup)
{
    if (cgroup->kill_fd >= 0)
        close(cgroup->kill_fd);
    if (cgroup->events_fd >= 0)
        close(cgroup->events_fd);
    cgroup->kill_fd = cgroup->events_fd = -1;
}

/* Calls `visit` for each pid listed in cgroup.procs of `folder`; false when the list cannot be read. */
static bool each_listed(int folder, bool (*visit)(pid_t pid, void *context), void *context)
{
    char text[1024];
    int pid = 0;
    bool in_number = false;
    int fd = openat(folder, "cgroup.procs", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return false;
    for (;;) {
        ssize_t got = read(fd, text, sizeof text);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            close(fd);
            return false;
        }
        if (got == 0)
            break;
        for (ssize_t i = 0; i < got; i++) {
            if (text[i] >= '0' && text[i] <= '9') {
                pid = pid * 10 + (text[i] - '0');
                in_number = true;
                continue;
            }
            /* Processes of another pid namespace are listed as 0, which kill() would take for ourselves. */
            if (in_number && pid > 0 && !visit(pid, context)) {
                close(fd);
                return true;
            }
            pid = 0;
            in_number = false;
        }
    }
    close(fd);
    return true;
}

struct listed_entry { /* what getdents64 writes */
    uint64_t inode;
    int64_t next;
    unsigned short size;
    unsigned char type;
    char name[];
};

/* The same for the folder and all below it. Closes `folder`. */
static bool each_below(int folder, int depth, bool (*visit)(pid_t pid, void *context), void *context)
{
    _Alignas(struct listed_entry) char names[2048];
    bool whole = each_listed(folder, visit, context);
    long got;

    while ((got = syscall(SYS_getdents64, folder, names, sizeof names)) > 0) {
        for (long at = 0; at < got;) {
            const struct listed_entry *entry = (const struct listed_entry *)(const void *)(names + at);
            at += entry->size;
            if (entry->type != DT_DIR || entry->name[0] == '.')
                continue;
            int below = openat(folder, entry->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            if (below < 0) {
                whole = whole && errno == ENOENT;
                continue;
            }
            if (depth >= DEEPEST) {
                close(below);
                whole = false;
                continue;
            }
            whole = each_below(below, depth + 1, visit, context) && whole;
        }
    }
    close(folder);
    return whole && got == 0;
}

static bool kill_visited(pid_t pid, void *context)
{
    (void)context;
    if (pid != getpid())
        (void)kill(pid, SIGKILL); /* one that is gone already is what we want */
    return true;
}

struct sought {
    pid_t pid;
    bool found;
};

static bool compare_visited(pid_t pid, void *context)
{
    struct sought *sought = context;

    sought->found = sought->found || pid == sought->pid;
    return !sought->found;
}

bool cgroup_holds(const struct cgroup *cgroup, pid_t pid)
{
    struct sought sought = { .pid = pid, .found = false };
    int folder = open(cgroup->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (folder < 0)
        return errno != ENOENT;
    return !each_below(folder, 0, compare_visited, &sought) || sought.found;
}

static bool kill_written(int fd)
{
    return fd >= 0 && pwrite(fd, "1", 1, 0) == 1;
}

void cgroup_kill(struct cgroup *cgroup, bool one_by_one)
{
    if (!one_by_one) {
        if (kill_written(cgroup->kill_fd))
            return;
        if (cgroup->kill_fd >= 0)
            close(cgroup->kill_fd);
        if (file_in(cgroup, "cgroup.kill", O_WRONLY, &cgroup->kill_fd) && kill_written(cgroup->kill_fd))
            return;
    }
    int folder = open(cgroup->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0)
        (void)each_below(folder, 0, kill_visited, NULL);
}

static enum cgroup_state told(int fd)
{
    char text[256];
    ssize_t got = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);

    if (got <= 0)
        return CGROUP_UNKNOWN;
    text[got] = '\0';
    if (strncmp(text, "populated 0", 11) == 0 || strstr(text, "\npopulated 0") != NULL)
        return CGROUP_EMPTY;
    return CGROUP_POPULATED;
}

enum cgroup_state cgroup_state(struct cgroup *cgroup)
{
    enum cgroup_state state = told(cgroup->events_fd);

    if (state != CGROUP_UNKNOWN)
        return state;
    if (cgroup->events_fd >= 0)
        close(cgroup->events_fd);
    if (!file_in(cgroup, "cgroup.events", O_RDONLY, &cgroup->events_fd))
        return errno == ENOENT ? CGROUP_EMPTY : CGROUP_UNKNOWN;
    return told(cgroup->events_fd);
}

bool cgroup_enter(const char *path)
{
    char file[CGROUP_PATH_BYTES + 32];
    int length = snprintf(file, sizeof file, "%s/cgroup.procs", path);

    if (length < 0 || (size_t)length >= sizeof file) {
        errno = ENAMETOOLONG;
        return false;
    }
    int fd = open(file, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool entered = write_all(fd, "0", 1);
    int error = errno;
    close(fd);
    errno = error;
    return entered;
}
