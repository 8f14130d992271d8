/* The note that a hardware watchdog is needed: which boot of this host, from when on others may act, and the timeout
 * that the device was granted. One guard writes it while something is protected; the next one, which has an empty
 * table, reads it to know how long the device may still be fed (watchdog.h).
 *
 * What was written last holds, also after a death in the middle: one line of fixed length, written in one call. It is
 * not synced: a reboot ends all that it speaks of. Nothing here allocates. */
#ifndef OUTLIVE_ARMED_H
#define OUTLIVE_ARMED_H

#include <stdbool.h>
#include <stdint.h>

/* over_ns: on the boot clock. Both are 0 where they cannot be read. */
struct armed {
    int64_t over_ns;
    int timeout_s;
};

/* False when there is none of this boot. One that cannot be understood may be of this boot. */
bool armed_read(const char *path, struct armed *armed);

/* Writes or overwrites it; false when that cannot be, and then what it said before still holds. */
bool armed_write(const char *path, struct armed armed);

bool armed_remove(const char *path);

#endif
