/* The thread that takes addresses away. It is a thread of its own because deleting an address waits for the
 * kernel's network lock, which a sick driver can hold for seconds, and that wait must not delay a kill.
 *
 * Each slot is owned by one side at a time: by the caller, until it asks; by the thread, until it has answered.
 * An address counts as gone when a whole listing of the kernel's addresses does not show it: on any interface,
 * with any prefix length. Nothing here adds an address, and nothing allocates once it has started. */
#ifndef OUTLIVE_DROPPER_H
#define OUTLIVE_DROPPER_H

#include <stdbool.h>

#include "address.h"

enum { DROPPER_SLOTS = 1024, DROPPER_ADDRESSES = 16 };

enum drop { DROP_IDLE, DROP_ASKED, DROP_GONE, DROP_LEFT };

/* Starts it in the caller's network namespace, with the caller's priority; false and errno when it cannot. */
bool dropper_start(void);

/* Asks for these to be taken away. The slot must not be DROP_ASKED. */
void dropper_ask(int slot, const struct address addresses[], unsigned count);

/* What has become of it. DROP_LEFT: ask again. */
enum drop dropper_answer(int slot);

/* Forgets an answer. The slot must not be DROP_ASKED. */
void dropper_forget(int slot);

/* A descriptor that becomes readable when any address was added in this namespace; drain it then. */
int dropper_news_fd(void);
void dropper_news_drain(void);

#endif
