#define _GNU_SOURCE
#include "clients.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fence.h"
#include "process.h"
#include "requests.h"

enum { MESSAGE_BYTES = 4096 };

/* How long to leave a connection waiting that cannot be accepted for want of descriptors. */
#define ACCEPT_PAUSE_NS (200 * NS_PER_MS)

struct client {
    int fd; /* -1: free */
    int64_t heard_ns;
    int status_next; /* the next entry of a STATUS under way; -1: none is */
};

static struct client clients[MOST_CLIENTS];
static const char *hello;

void clients_start(const char *greeting)
{
    hello = greeting;
    for (int i = 0; i < MOST_CLIENTS; i++)
        clients[i] = (struct client){ .fd = -1, .status_next = -1 };
}

static void client_close(struct client *client)
{
    close(client->fd);
    client->fd = -1;
    client->status_next = -1;
}

/* False when it has to wait for the client to read. A client that has gone is noticed when it is read from. */
static bool client_send(const struct client *client, const char *text)
{
    return send(client->fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 || errno != EAGAIN;
}

void clients_tell(const char *text)
{
    for (int i = 0; i < MOST_CLIENTS; i++)
        if (clients[i].fd >= 0)
            (void)client_send(&clients[i], text);
}

static void send_status(struct client *client)
{
    static char text[ENTRY_TEXT_BYTES];

    while (client->status_next >= 0) {
        int next = fence_describe(client->status_next, text);
        if (!client_send(client, next < 0 ? "END" : text))
            return;
        client->status_next = next;
    }
}

static void client_receive(struct client *client)
{
    static char message[MESSAGE_BYTES];
    char answer[ANSWER_BYTES];
    ssize_t got = recv(client->fd, message, sizeof message - 1, MSG_DONTWAIT | MSG_TRUNC);
    int64_t now_ns = boottime_ns();

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        client_close(client);
        return;
    }
    client->heard_ns = now_ns;
    fence_work(now_ns);
    if ((size_t)got > sizeof message - 1) {
        if (!client_send(client, "ERR malformed the message is longer than 4095 bytes"))
            client_close(client);
        return;
    }
    message[got] = '\0';
    if (request_handle(message, (size_t)got, now_ns, answer))
        client->status_next = 0;
    if (!client_send(client, answer))
        client_close(client); /* it asks without reading answers */
    else
        send_status(client);
}

static struct client *client_place(void)
{
    struct client *oldest = &clients[0];

    for (int i = 0; i < MOST_CLIENTS; i++) {
        if (clients[i].fd < 0)
            return &clients[i];
        if (clients[i].heard_ns < oldest->heard_ns)
            oldest = &clients[i];
    }
    client_close(oldest);
    return oldest;
}

int64_t clients_accept(int listen_fd)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0) {
        bool passing = errno == EAGAIN || errno == EINTR || errno == ECONNABORTED;
        return passing ? 0 : boottime_ns() + ACCEPT_PAUSE_NS;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.uid != geteuid()) {
        close(fd);
        return 0;
    }
    struct client *client = client_place();
    *client = (struct client){ .fd = fd, .heard_ns = boottime_ns(), .status_next = -1 };
    (void)client_send(client, hello);
    return 0;
}

void clients_poll(struct pollfd polled[MOST_CLIENTS])
{
    for (int i = 0; i < MOST_CLIENTS; i++)
        polled[i] = (struct pollfd){
            .fd = clients[i].fd,
            .events = clients[i].status_next >= 0 ? POLLOUT : POLLIN,
        };
}

void clients_serve(const struct pollfd polled[MOST_CLIENTS])
{
    for (int i = 0; i < MOST_CLIENTS; i++) {
        struct client *client = &clients[i];
        if (client->fd < 0 || polled[i].revents == 0)
            continue;
        if (client->status_next >= 0 && (polled[i].revents & (POLLERR | POLLHUP)) == 0)
            send_status(client);
        else
            client_receive(client);
    }
}
