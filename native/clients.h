/* A guard's clients: who is connected, what they send, and that each gets its answer. What a message asks is the
 * business of requests.h. A client that asks without reading answers is let go of; one that is silent longest makes
 * room, since a new agent must get in. */
#ifndef OUTLIVE_CLIENTS_H
#define OUTLIVE_CLIENTS_H

#include <poll.h>
#include <stdint.h>

enum { MOST_CLIENTS = 16 };

/* hello: what each is told first; it must stay. */
void clients_start(const char *hello);

/* Tells everybody; who does not read will find it in STATUS. */
void clients_tell(const char *text);

/* Fills in what to wait for, and deals with what has come. */
void clients_poll(struct pollfd polled[MOST_CLIENTS]);
void clients_serve(const struct pollfd polled[MOST_CLIENTS]);

/* Takes in one more; the moment before which no other can be taken, for want of descriptors, else 0. */
int64_t clients_accept(int listen_fd);

#endif
