/* The hardware watchdog: a device that resets this host unless it is fed (Linux, Documentation/watchdog/
 * watchdog-api.rst). It is what ends the host's workloads when the guard cannot: because it was killed, because it
 * hangs, or because what it killed hangs in the kernel.
 *
 * The guard feeds it only where a device that is fed no more resets the host in time:
 *
 *     feed at f  only if  nothing is protected here  or  f + timeout + timeout/50 <= over
 *
 * where `over` is the moment from which on others may act (deadline and the guard's lateness, on the boot clock; a
 * fiftieth is the device's own drift). So the device fires by `over` at the latest, whatever becomes of the guard, and
 * a guard that has emptied everything before that feeds again. It is disarmed, by the magic close, only when nothing
 * is protected.
 *
 * A guard that was killed leaves the device running, and its successor an empty table: until it is told that the table
 * is whole again it feeds by `over` alone. That there was something to protect, in this boot of the host, and until
 * when, is noted in a file beside the socket (armed.h). Where the successor comes too late for another feed it does not
 * even open the device, since that is one, nor disarms it: not before a later `over` is said, or that nothing is
 * protected any more.
 *
 * Without a device every function does nothing. Nothing here allocates. */
#ifndef OUTLIVE_WATCHDOG_H
#define OUTLIVE_WATCHDOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WATCHDOG_TEXT_BYTES = 192 };

/* timeout_s: to ask for.  longest_s: the longest that may be granted.  note: the file beside the socket. */
struct watchdog_wish {
    const char *path;
    const char *note;
    unsigned timeout_s;
    unsigned longest_s;
};

/* Opens and arms it where that is allowed already; null when all is well, else why not (errno may say more), and then
 * it is as it was before. */
const char *watchdog_open(const struct watchdog_wish *wish);

/* What was asked for and had, as words for HELLO: watchdog=none, or the timeout in seconds and the device's name, as in
 * watchdog=2s:softdog device=/dev/watchdog asked=2. */
void watchdog_describe(char text[WATCHDOG_TEXT_BYTES]);

/* Whether that has changed since it was asked for. */
bool watchdog_describes_anew(void);

/* From when on others may act; only grows. */
void watchdog_extend(int64_t over_ns);

/* Notes that something is about to be protected, for the next guard; false when that cannot be done, or the device is
 * not in this guard's hands: it could not be opened, or may not be before a later `over` is said. */
bool watchdog_remember(void);

/* All that this host acts for is in the table: an empty one means that nothing is. */
void watchdog_trust_table(void);

/* Whether something may run that is not in the table: a guard before this one died, and nobody has said. */
bool watchdog_doubts_table(void);

/* Feeds it where that is due and allowed. in_force: how many entries are protected, or not yet certainly down. */
void watchdog_work(int64_t now_ns, unsigned in_force);

/* Milliseconds until watchdog_work wants to be called again; -1: not before something happens. */
int watchdog_patience_ms(int64_t now_ns, unsigned in_force);

/* Disarms it, unless the table is doubted. To be called only when nothing in it is protected. */
void watchdog_close(void);

#endif
