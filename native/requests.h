/* What a guard's clients ask, one message at a time: its words are looked at here, and what is asked is done.
 * The protocol is told in guard.c. Nothing here reads a socket. */
#ifndef OUTLIVE_REQUESTS_H
#define OUTLIVE_REQUESTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ANSWER_BYTES = 320 };

/* Does what a message asks, and writes its one answer. True when STATUS was asked, whose entries follow. */
bool request_handle(char *message, size_t length, int64_t now_ns, char answer[ANSWER_BYTES]);

/* Whether a QUIT was agreed to. */
bool request_quit(void);

#endif
