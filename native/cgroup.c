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

/* Calls `visit` with each cgroup right below `folder`, opened, which visit closes; false when not all were seen. */
static bool each_child(int folder, bool (*visit)(int child, const char *name, void *context), void *context)
{
    _Alignas(struct listed_entry) char names[2048];
    bool whole = true;
    long got;

    while ((got = syscall(SYS_getdents64, folder, names, sizeof names)) > 0) {
        for (long at = 0; at < got;) {
            const struct listed_entry *entry = (const struct listed_entry *)(const void *)(names + at);
            at += entry->size;
            if (entry->type != DT_DIR || entry->name[0] == '.')
                continue;
            int child = openat(folder, entry->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            if (child < 0)
                whole = whole && errno == ENOENT;
            else
                whole = visit(child, entry->name, context) && whole;
        }
    }
    return whole && got == 0;
}

struct descent {
    bool (*visit)(pid_t pid, void *context);
    void *context;
    int depth;
};

static bool each_below(int folder, const struct descent *descent);

static bool descend(int child, const char *name, void *context)
{
    struct descent deeper = *(const struct descent *)context;

    (void)name;
    if (++deeper.depth > DEEPEST) {
        close(child);
        return false;
    }
    return each_below(child, &deeper);
}

/* each_listed for the folder and all below it. Closes `folder`. */
static bool each_below(int folder, const struct descent *descent)
{
    struct descent context = *descent;
    bool whole = each_listed(folder, descent->visit, descent->context);

    whole = each_child(folder, descend, &context) && whole;
    close(folder);
    return whole;
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
    const struct descent descent = { .visit = compare_visited, .context = &sought };
    return !each_below(folder, &descent) || sought.found;
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
        (void)each_below(folder, &(struct descent){ .visit = kill_visited });
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

struct sparing {
    const char *spared;
    bool one_by_one;
};

static enum cgroup_state told_below(int folder)
{
    int fd = openat(folder, "cgroup.events", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? CGROUP_EMPTY : CGROUP_UNKNOWN;
    enum cgroup_state state = told(fd);
    close(fd);
    return state;
}

/* Kills all in the child, unless it is the one to spare; true when nothing of it is left. */
static bool kill_child(int child, const char *name, void *context)
{
    const struct sparing *sparing = context;
    int fd = -1;

    if (strcmp(name, sparing->spared) == 0 || told_below(child) == CGROUP_EMPTY) {
        close(child);
        return true;
    }
    if (!sparing->one_by_one)
        fd = openat(child, "cgroup.kill", O_WRONLY | O_CLOEXEC);
    bool killed = kill_written(fd);
    if (fd >= 0)
        close(fd);
    if (killed)
        close(child);
    else
        (void)each_below(child, &(struct descent){ .visit = kill_visited });
    return false;
}

static bool kill_and_tell(pid_t pid, void *context)
{
    bool *found = context;

    *found = true;
    return kill_visited(pid, NULL);
}

bool cgroup_kill_sparing(const struct cgroup *cgroup, const char *spared, bool one_by_one)
{
    struct sparing sparing = { .spared = spared, .one_by_one = one_by_one };
    bool found = false;
    int folder = open(cgroup->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (folder < 0)
        return errno == ENOENT;
    bool whole = each_child(folder, kill_child, &sparing);
    whole = each_listed(folder, kill_and_tell, &found) && whole;
    close(folder);
    return whole && !found;
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
