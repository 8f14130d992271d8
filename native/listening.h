/* The socket on which there is only ever one guard. */
#ifndef OUTLIVE_LISTENING_H
#define OUTLIVE_LISTENING_H

#include <stddef.h>
#include <sys/un.h>

enum { SOCKET_PATH_BYTES = sizeof((struct sockaddr_un *)0)->sun_path };

/* Null when the socket at `path` is ours, as *listen_fd; else why not, and *status is the exit code. */
const char *listen_alone(const char *path, int most_waiting, int *listen_fd, int *status);

#endif
