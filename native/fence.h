/* The guard's table: what this host acts for, and making it act no longer.
 *
 * An entry is protected, then perhaps firing (being killed), then fired; only a release forgets it. What fired
 * stays so whatever deadline comes later, and until its release whatever appears again in its cgroup or at its
 * addresses is taken away again: an agent that was stopped in the middle of starting it may go on at any time.
 *
 * The kill is sent first and the addresses go right after it, by a thread of their own (dropper.h): two writers
 * on one data folder are worse than an address that answers for a moment longer, and neither waits for the other.
 *
 * What is in a workload's child cgroup FENCE_LAST, where its run lock is held, is killed once all else is down:
 * a process that waits for storage does not die at once, and while it may still write nobody else gets the lock.
 *
 * Nothing here reads a socket, and nothing allocates. */
#ifndef OUTLIVE_FENCE_H
#define OUTLIVE_FENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "address.h"
#include "cgroup.h"
#include "dropper.h"
#include "process.h"

#define FENCE_LAST "_runner"

enum {
    MOST_ENTRIES = DROPPER_SLOTS,
    MOST_ADDRESSES = DROPPER_ADDRESSES,
    ENTRY_TEXT_BYTES = CGROUP_PATH_BYTES + MOST_ADDRESSES * ADDRESS_TEXT_BYTES + 256,
};

/* Told by the table, each a line without its end: `tell` to whoever is connected, `note` to the log. */
struct fence_listener {
    void (*tell)(const char *text);
    void (*note)(const char *format, ...) __attribute__((format(printf, 1, 2)));
};

/* one_by_one: do without cgroup.kill. The dropper runs already. */
void fence_start(struct fence_listener listener, bool one_by_one);

/* An address appeared somewhere, so that what was taken away may be there again. */
void fence_address_news(void);

/* The three that a client asks for: null when done, else "word sentence" for its ERR. */
const char *fence_protect(const char *workload, uint64_t generation, const char *cgroup, char *const addresses[],
                          size_t count, int64_t now_ns);
const char *fence_release(const char *workload, uint64_t generation);
const char *fence_one(const char *workload, uint64_t generation, int64_t now_ns);

/* The host's deadline: only grows. 0: there never was one. */
int64_t fence_deadline_ns(void);
const char *fence_extend(int64_t deadline_ns, int64_t now_ns);

/* Marks everything that is due, and works on all that is firing. Cheap when there is nothing to do. */
void fence_work(int64_t now_ns);

/* Milliseconds until fence_work wants to be called again; -1: not before something happens. */
int fence_patience_ms(void);

/* How many entries are protected or not yet certainly down. */
unsigned fence_in_force(void);
unsigned fence_entries(void);

/* Describes the first entry at or after `index`; the index after it, or -1 when there is none. */
int fence_describe(int index, char text[ENTRY_TEXT_BYTES]);

#endif
