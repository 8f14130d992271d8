#define _GNU_SOURCE
#include "watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/watchdog.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "armed.h"
#include "journal.h"
#include "process.h"

/* Fed so many times within its timeout, as long as that is allowed. */
enum { FEEDS_IN_TIMEOUT = 8 };

/* The last feed that is allowed is made so long before it would be too late. */
#define LAST_FEED_EARLY_NS (5 * NS_PER_MS)

static struct {
    struct watchdog_wish wish; /* path: null when there is to be none */
    int fd;                    /* -1: none, or not opened yet */
    char identity[sizeof((struct watchdog_info *)0)->identity + 1];
    int timeout_s;
    int64_t over_ns;
    int64_t fed_ns;
    bool noted;
    bool table_doubted;
    bool starving;
    bool refused;
    bool renamed;
} dog = { .fd = -1 };

/* The bytes that a feed and the magic close are (watchdog-api.rst). */
static const char FEED = '\0';
static const char MAGIC = 'V';

static bool feed(int64_t now_ns)
{
    dog.fed_ns = now_ns;
    if (write(dog.fd, &FEED, 1) == 1)
        return true;
    journal_note("watchdog.feed_failed error=%s", strerrorname_np(errno));
    return false;
}

static void disarm(void)
{
    bool spelt = write(dog.fd, &MAGIC, 1) == 1;

    if (close(dog.fd) != 0 || !spelt)
        journal_note("watchdog.close_failed error=%s", strerrorname_np(errno));
    dog.fd = -1;
}

/* Lets go of the device and leaves it running, as a death would. */
static void abandon(void)
{
    close(dog.fd);
    dog.fd = -1;
}

static bool is_timeout_safe(void)
{
    return ioctl(dog.fd, WDIOC_GETTIMEOUT, &dog.timeout_s) == 0 && dog.timeout_s >= 1
           && (unsigned)dog.timeout_s <= dog.wish.longest_s;
}

/* What the device is, and what it grants. One that runs already for a guard before this one keeps its timeout if that
 * is safe: to ask for another one would be a sign of life of that length. */
static const char *ask_device(void)
{
    static char sentence[128];
    struct watchdog_info info = { 0 };
    int timeout_s = (int)dog.wish.timeout_s;

    if (ioctl(dog.fd, WDIOC_GETSUPPORT, &info) != 0)
        return "the watchdog device does not say what it is";
    for (size_t i = 0; i < sizeof info.identity && info.identity[i] != '\0'; i++) {
        char c = (char)info.identity[i];
        dog.identity[i] = c > ' ' && c <= '~' ? c : '_';
    }
    errno = 0;
    if ((info.options & WDIOF_MAGICCLOSE) == 0)
        return "the watchdog device is disarmed by whoever closes it, so that it would not outlast a guard that dies";
    if (dog.noted && is_timeout_safe())
        return NULL;
    if (ioctl(dog.fd, WDIOC_SETTIMEOUT, &timeout_s) != 0 && errno != EOPNOTSUPP && errno != ENOTTY)
        return "the watchdog device refuses the timeout";
    if (ioctl(dog.fd, WDIOC_GETTIMEOUT, &dog.timeout_s) != 0)
        return "the watchdog device does not tell its timeout";
    errno = 0;
    if (dog.timeout_s < 1)
        return "the watchdog device tells a timeout that cannot be";
    if ((unsigned)dog.timeout_s > dog.wish.longest_s) {
        snprintf(sentence, sizeof sentence,
                 "the watchdog device grants %d s, which is longer than the %u s that are safe", dog.timeout_s,
                 dog.wish.longest_s);
        return sentence;
    }
    return NULL;
}

/* Opening is a sign of life to the device. Null when done; else why not, and it is as it was before. */
static const char *take_up(void)
{
    int timeout_s = dog.timeout_s;

    dog.fed_ns = boottime_ns();
    dog.fd = open(dog.wish.path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    if (dog.fd < 0)
        return "the watchdog device cannot be opened";
    const char *refusal = ask_device();
    if (refusal != NULL) {
        int error = errno;
        if (dog.noted)
            abandon(); /* something may run that it is to end */
        else
            disarm();
        dog.timeout_s = timeout_s;
        errno = error;
        return refusal;
    }
    dog.renamed = true;
    (void)feed(boottime_ns());
    return NULL;
}

/* The last moment at which a feed still lets the device fire in time. */
static int64_t last_feed_ns(void)
{
    int64_t timeout_ns = dog.timeout_s * NS_PER_S;

    return dog.over_ns - timeout_ns - timeout_ns / 50;
}

static void note_write(void)
{
    if (armed_write(dog.wish.note, (struct armed){ .over_ns = dog.over_ns, .timeout_s = dog.timeout_s }))
        dog.noted = true;
    else
        journal_note("watchdog.note_failed error=%s", strerrorname_np(errno));
}

const char *watchdog_open(const struct watchdog_wish *wish)
{
    struct armed before;

    if (wish->path == NULL)
        return NULL;
    dog.wish = *wish;
    if (!armed_read(wish->note, &before))
        return take_up();
    dog.table_doubted = dog.noted = true;
    dog.over_ns = before.over_ns;
    dog.timeout_s = before.timeout_s > 0 ? before.timeout_s : (int)wish->longest_s;
    if (boottime_ns() <= last_feed_ns())
        return take_up();
    journal_note("watchdog.left_alone over_ns=%" PRId64, dog.over_ns);
    return NULL;
}

/* As one word, or a question mark. */
static void path_describe(char *text, size_t size)
{
    bool plain = strlen(dog.wish.path) < size;

    for (const char *c = dog.wish.path; *c != '\0'; c++)
        plain &= *c > ' ' && *c <= '~';
    snprintf(text, size, "%s", plain ? dog.wish.path : "?");
}

void watchdog_describe(char text[WATCHDOG_TEXT_BYTES])
{
    char path[WATCHDOG_TEXT_BYTES / 2];

    dog.renamed = false;
    if (dog.wish.path == NULL) {
        snprintf(text, WATCHDOG_TEXT_BYTES, "watchdog=none");
        return;
    }
    path_describe(path, sizeof path);
    snprintf(text, WATCHDOG_TEXT_BYTES, "watchdog=%ds:%s device=%s asked=%u", dog.timeout_s,
             dog.fd < 0 ? "not_fed_yet" : dog.identity, path, dog.wish.timeout_s);
}

bool watchdog_describes_anew(void)
{
    return dog.renamed;
}

void watchdog_extend(int64_t over_ns)
{
    if (over_ns <= dog.over_ns)
        return;
    dog.over_ns = over_ns;
    if (dog.noted)
        note_write();
}

bool watchdog_remember(void)
{
    if (dog.wish.path == NULL)
        return true;
    if (dog.fd < 0)
        return false; /* also where the note of the guard before this one stands: nobody feeds the device */
    if (!dog.noted)
        note_write();
    return dog.noted;
}

void watchdog_trust_table(void)
{
    dog.table_doubted = false;
}

bool watchdog_doubts_table(void)
{
    return dog.table_doubted;
}

static bool is_bound(unsigned in_force)
{
    return in_force > 0 || dog.table_doubted;
}

static int64_t feed_every_ns(void)
{
    return dog.timeout_s * NS_PER_S / FEEDS_IN_TIMEOUT;
}

/* A device that could not be opened is tried again as often as it would be fed. */
static void take_up_late(int64_t now_ns)
{
    if (now_ns - dog.fed_ns < feed_every_ns())
        return;
    const char *refusal = take_up();
    if (refusal != NULL && !dog.refused)
        journal_note("watchdog.not_taken_up reason=%s error=%s", refusal, strerrorname_np(errno));
    dog.refused = refusal != NULL;
}

void watchdog_work(int64_t now_ns, unsigned in_force)
{
    int64_t last_ns = last_feed_ns();

    if (dog.wish.path == NULL)
        return;
    if (!is_bound(in_force)) {
        if (dog.noted && armed_remove(dog.wish.note))
            dog.noted = false;
    } else if (now_ns > last_ns) {
        if (!dog.starving)
            journal_note("watchdog.starving over_ns=%" PRId64 " in_force=%u", dog.over_ns, in_force);
        dog.starving = true;
        return;
    }
    if (dog.fd < 0) {
        take_up_late(now_ns);
        return;
    }
    int64_t chance_ns = last_ns - LAST_FEED_EARLY_NS;
    bool last_chance = is_bound(in_force) && now_ns >= chance_ns && dog.fed_ns < chance_ns;
    if (dog.starving)
        journal_note("watchdog.fed_again in_force=%u", in_force);
    if ((dog.starving || last_chance || now_ns - dog.fed_ns >= feed_every_ns()) && feed(now_ns))
        dog.starving = false;
}

int watchdog_patience_ms(int64_t now_ns, unsigned in_force)
{
    int64_t next_ns = dog.fed_ns + feed_every_ns();

    if (dog.wish.path == NULL)
        return -1;
    if (is_bound(in_force)) {
        int64_t last_ns = last_feed_ns() - LAST_FEED_EARLY_NS;
        if (now_ns > last_ns + LAST_FEED_EARLY_NS)
            return -1; /* not before a deadline comes, or all is down */
        if (last_ns > now_ns && last_ns < next_ns)
            next_ns = last_ns;
    }
    int64_t left_ms = (next_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS;
    return left_ms < 0 ? 0 : left_ms > INT_MAX ? INT_MAX : (int)left_ms;
}

void watchdog_close(void)
{
    if (dog.fd < 0)
        return;
    if (dog.table_doubted) {
        abandon();
        return;
    }
    if (dog.noted)
        (void)armed_remove(dog.wish.note);
    disarm();
}
