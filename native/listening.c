#define _GNU_SOURCE
#include "listening.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "process.h"

const char *listen_alone(const char *path, int most_waiting, int *listen_fd, int *status)
{
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    char lock_path[sizeof name.sun_path + 8];

    errno = 0;
    *status = EXIT_FAILED;
    if (strlen(path) >= sizeof name.sun_path)
        return "the socket's path is longer than 107 bytes";
    if (path[0] != '/')
        return "the socket's path is not absolute";
    strcpy(name.sun_path, path);
    snprintf(lock_path, sizeof lock_path, "%s.lock", path);
    umask(0177);
    int lock = open(lock_path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (lock < 0)
        return "the lock file beside the socket cannot be opened";
    if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK)
            return "the lock file beside the socket cannot be locked";
        errno = 0;
        *status = EXIT_REFUSED;
        return "another guard holds the lock file beside the socket";
    }
    /* Should someone have removed the lock file of a guard that lives, its socket still answers. */
    int probe = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0)
        return "no socket can be made";
    bool answers = connect(probe, (struct sockaddr *)&name, sizeof name) == 0 || errno == EAGAIN;
    close(probe);
    errno = 0;
    if (answers) {
        *status = EXIT_REFUSED;
        return "another guard listens on the socket";
    }
    if (unlink(path) != 0 && errno != ENOENT)
        return "the old socket cannot be removed";
    *listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*listen_fd < 0 || bind(*listen_fd, (struct sockaddr *)&name, sizeof name) != 0
        || listen(*listen_fd, most_waiting) != 0)
        return "the socket cannot be bound";
    return NULL;
}
