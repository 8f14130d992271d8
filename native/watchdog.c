#define _GNU_SOURCE
#include "watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/watchdog.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "journal.h"
#include "process.h"

/* Fed so many times within its timeout, as long as that is allowed. */
enum { FEEDS_IN_TIMEOUT = 8 };

/* The last feed that is allowed is made so long before it would be too late. */
#define LAST_FEED_EARLY_NS (5 * NS_PER_MS)

static struct {
    int fd; /* -1: none */
    const char *note;
    char identity[sizeof((struct watchdog_info *)0)->identity + 1];
    int timeout_s;
    int64_t over_ns;
    int64_t fed_ns;
    bool noted;
    bool table_doubted;
    bool starving;
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

/* What the device is, and what it grants. */
static const char *ask_device(const struct watchdog_wish *wish)
{
    static char sentence[128];
    struct watchdog_info info = { 0 };
    int timeout_s = (int)wish->timeout_s;

    if (ioctl(dog.fd, WDIOC_GETSUPPORT, &info) != 0)
        return "the watchdog device does not say what it is";
    for (size_t i = 0; i < sizeof info.identity && info.identity[i] != '\0'; i++) {
        char c = (char)info.identity[i];
        dog.identity[i] = c > ' ' && c <= '~' ? c : '_';
    }
    errno = 0;
    if ((info.options & WDIOF_MAGICCLOSE) == 0)
        return "the watchdog device is disarmed by whoever closes it, so that it would not outlast a guard that dies";
    if (ioctl(dog.fd, WDIOC_SETTIMEOUT, &timeout_s) != 0 && errno != EOPNOTSUPP && errno != ENOTTY)
        return "the watchdog device refuses the timeout";
    if (ioctl(dog.fd, WDIOC_GETTIMEOUT, &dog.timeout_s) != 0)
        return "the watchdog device does not tell its timeout";
    errno = 0;
    if (dog.timeout_s < 1)
        return "the watchdog device tells a timeout that cannot be";
    if ((unsigned)dog.timeout_s > wish->longest_s) {
        snprintf(sentence, sizeof sentence,
                 "the watchdog device grants %d s, which is longer than the %u s that are safe", dog.timeout_s,
                 wish->longest_s);
        return sentence;
    }
    return NULL;
}

/* A reboot has ended whatever a guard before it protected. */
static bool is_noted_in_this_boot(void)
{
    char noted[BOOT_ID_BYTES + 1];
    char boot_id[BOOT_ID_BYTES + 1];

    if (file_read(AT_FDCWD, dog.note, noted, sizeof noted) < 0)
        return errno != ENOENT;
    return !boot_id_read(boot_id) || strcmp(noted, boot_id) == 0;
}

const char *watchdog_open(const struct watchdog_wish *wish)
{
    if (wish->path == NULL)
        return NULL;
    dog.note = wish->note;
    dog.fd = open(wish->path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    if (dog.fd < 0)
        return "the watchdog device cannot be opened";
    const char *refusal = ask_device(wish);
    if (refusal != NULL) {
        int error = errno;
        disarm();
        errno = error;
        return refusal;
    }
    dog.table_doubted = dog.noted = is_noted_in_this_boot();
    (void)feed(boottime_ns());
    return NULL;
}

void watchdog_describe(char text[WATCHDOG_TEXT_BYTES])
{
    if (dog.fd < 0)
        snprintf(text, WATCHDOG_TEXT_BYTES, "none");
    else
        snprintf(text, WATCHDOG_TEXT_BYTES, "%ds:%s", dog.timeout_s, dog.identity);
}

void watchdog_extend(int64_t over_ns)
{
    if (over_ns > dog.over_ns)
        dog.over_ns = over_ns;
}

bool watchdog_remember(void)
{
    if (dog.fd < 0 || dog.noted)
        return true;
    char boot_id[BOOT_ID_BYTES + 1];
    int fd = open(dog.note, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    dog.noted = boot_id_read(boot_id) && write_all(fd, boot_id, BOOT_ID_BYTES);
    close(fd);
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

/* The last moment at which a feed still lets the device fire in time. */
static int64_t last_feed_ns(void)
{
    int64_t timeout_ns = dog.timeout_s * NS_PER_S;

    return dog.over_ns - timeout_ns - timeout_ns / 50;
}

void watchdog_work(int64_t now_ns, unsigned in_force)
{
    int64_t every_ns = dog.timeout_s * NS_PER_S / FEEDS_IN_TIMEOUT;
    int64_t last_ns = last_feed_ns();

    if (dog.fd < 0)
        return;
    if (!is_bound(in_force)) {
        if (dog.noted && unlink(dog.note) == 0)
            dog.noted = false;
    } else if (now_ns > last_ns) {
        if (!dog.starving)
            journal_note("watchdog.starving over_ns=%lld in_force=%u", (long long)dog.over_ns, in_force);
        dog.starving = true;
        return;
    }
    int64_t chance_ns = last_ns - LAST_FEED_EARLY_NS;
    bool last_chance = is_bound(in_force) && now_ns >= chance_ns && dog.fed_ns < chance_ns;
    if (dog.starving)
        journal_note("watchdog.fed_again in_force=%u", in_force);
    if ((dog.starving || last_chance || now_ns - dog.fed_ns >= every_ns) && feed(now_ns))
        dog.starving = false;
}

int watchdog_patience_ms(int64_t now_ns, unsigned in_force)
{
    int64_t next_ns = dog.fed_ns + dog.timeout_s * NS_PER_S / FEEDS_IN_TIMEOUT;

    if (dog.fd < 0)
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
    if (dog.noted)
        (void)unlink(dog.note);
    disarm();
}
