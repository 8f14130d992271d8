/* outlive-runlock: holds a workload's run lock on a datastore for as long as it lives.
 *
 *     outlive-runlock LOCKFILE GENERATION OWNER [--ready-fd N] [--cgroup DIR] [--state FILE]
 *     outlive-runlock LOCKFILE GENERATION OWNER --take-from HELD_BY [--ready-fd N]
 *     outlive-runlock --probe LOCKFILE [--ready-fd N]
 *
 * It takes an OFD lock on the file without waiting, writes who holds it and at which generation, syncs that, says
 * so, and sleeps until it is killed; the kernel (or the file server) then lets go. It sits in --cgroup, so that it
 * dies with the workload. --state, a local file, gets {"boot_id","pid","start_ticks","generation","owner","file",
 * "held"}: who this process is and whether it holds the lock yet, so that a restarted agent finds it.
 *
 * With --take-from it takes the lock only where HELD_BY has held it at this very generation (or OWNER, or another
 * whose name begins as OWNER's does up to a ':'), writes itself into the record and ends: then HELD_BY does not hold
 * it, and never gets it back at this generation. A lock that HELD_BY never held proves nothing of it.
 *
 * One line on the ready descriptor (standard output without one), and the exit code where it ends:
 *     HELD                                      it holds
 *     TAKEN                            exit 0   --take-from: it was free, and is not HELD_BY's any more
 *     BUSY owner generation            exit 3   someone holds it; ? 0 when the record cannot be read
 *     NEWER owner generation           exit 3   a newer generation has held it
 *     OTHER owner generation           exit 3   another owner has held it at this very generation
 *     GARBLED sentence                 exit 3   the record is damaged; it is never taken for an old one
 *     ERR sentence                     exit 1
 *     FREE owner generation | FREE | HELD owner generation | HELD | GARBLED sentence     --probe, exit 0
 *
 * The record is RECORD_BYTES of text: a JSON object, spaces, and a checksum (FNV-1a, 64 bits) of all before it.
 * An empty file is a lock that was never held. The file is never removed: another might hold what is removed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cgroup.h"
#include "process.h"

enum {
    RECORD_BYTES = 512,
    SUM_BYTES = 18, /* '#', 16 digits, newline */
    OWNER_BYTES = 128,
};

struct record {
    uint64_t generation;
    char owner[OWNER_BYTES];
    char boot_id[BOOT_ID_BYTES + 1];
};

struct options {
    const char *file;
    const char *cgroup;
    const char *state;
    const char *take_from;
    struct record wanted;
    int ready_fd;
    bool probe;
};

static uint64_t checksum(const char *bytes, size_t size)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < size; i++)
        sum = (sum ^ (unsigned char)bytes[i]) * UINT64_C(0x100000001b3);
    return sum;
}

static bool owner_valid(const char *owner)
{
    size_t length = strlen(owner);

    if (length < 1 || length >= OWNER_BYTES)
        return false;
    for (size_t i = 0; i < length; i++) {
        char c = owner[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && c != '.' && c != '_' && c != '-' && c != ':' && c != '@')
            return false;
    }
    return true;
}

static void record_print(const struct record *record, char text[RECORD_BYTES + 1])
{
    int length = snprintf(text, RECORD_BYTES + 1, "{\"generation\":%" PRIu64 ",\"owner\":\"%s\",\"boot_id\":\"%s\"}",
                          record->generation, record->owner, record->boot_id);

    memset(text + length, ' ', (size_t)(RECORD_BYTES - SUM_BYTES - length));
    snprintf(text + RECORD_BYTES - SUM_BYTES, SUM_BYTES + 1, "#%016" PRIx64 "\n",
             checksum(text, RECORD_BYTES - SUM_BYTES));
}

/* What is between `before` and the next `end`, into `into`; the place behind it, or null. */
static const char *part(const char *text, const char *before, char end, char *into, size_t size)
{
    size_t skipped = strlen(before);

    if (text == NULL || strncmp(text, before, skipped) != 0)
        return NULL;
    const char *last = strchr(text + skipped, end);
    if (last == NULL || (size_t)(last - text) - skipped >= size)
        return NULL;
    memcpy(into, text + skipped, (size_t)(last - text) - skipped);
    into[(size_t)(last - text) - skipped] = '\0';
    return last;
}

/* Null when the text is a record, which then prints as the same bytes again; else why it is not. */
static const char *record_parse(const char text[RECORD_BYTES + 1], struct record *record)
{
    char again[RECORD_BYTES + 1];
    char number[24];
    const char *rest = part(text, "{\"generation\":", ',', number, sizeof number);

    rest = part(rest, ",\"owner\":\"", '"', record->owner, sizeof record->owner);
    rest = part(rest, "\",\"boot_id\":\"", '"', record->boot_id, sizeof record->boot_id);
    if (rest == NULL || !number_parse(number, INT64_MAX, &record->generation) || !owner_valid(record->owner))
        return "the record is not one of a run lock";
    record_print(record, again);
    return memcmp(text, again, RECORD_BYTES) == 0 ? NULL : "the record's checksum does not fit";
}

enum reading { READ_RECORD, READ_NOTHING, READ_GARBLED, READ_FAILED, READ_REPLACED, READ_UNWRITTEN, READ_NEVER_HELD };

static enum reading record_read(int fd, struct record *record, const char **why)
{
    char text[RECORD_BYTES + 2];
    size_t total = 0;

    memset(text, 0, sizeof text);
    while (total < RECORD_BYTES + 1) {
        ssize_t got = pread(fd, text + total, RECORD_BYTES + 1 - total, (off_t)total);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return READ_FAILED;
        if (got == 0)
            break;
        total += (size_t)got;
    }
    if (total == 0)
        return READ_NOTHING;
    *why = "the record has not the size of one";
    if (total != RECORD_BYTES)
        return READ_GARBLED;
    *why = record_parse(text, record);
    return *why == NULL ? READ_RECORD : READ_GARBLED;
}

static bool record_write(int fd, const struct record *record)
{
    char text[RECORD_BYTES + 1];
    size_t total = 0;

    record_print(record, text);
    while (total < RECORD_BYTES) {
        ssize_t put = pwrite(fd, text + total, RECORD_BYTES - total, (off_t)total);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return false;
        total += (size_t)put;
    }
    return fdatasync(fd) == 0;
}

static int say_error(struct options *options, const char *sentence)
{
    ready_say(&options->ready_fd, STDOUT_FILENO, "ERR %s: %s", sentence, strerrordesc_np(errno));
    return EXIT_FAILED;
}

static int say_garbled(struct options *options, const char *why, int status)
{
    ready_say(&options->ready_fd, STDOUT_FILENO, "GARBLED %s", why);
    return status;
}

static int say_record(struct options *options, const char *word, const struct record *record, int status)
{
    ready_say(&options->ready_fd, STDOUT_FILENO, "%s %s %" PRIu64, word, record->owner, record->generation);
    return status;
}

static int probe(struct options *options)
{
    struct flock wanted = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    struct record record;
    const char *why = NULL;
    int fd = open(options->file, O_RDONLY | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT) {
        ready_say(&options->ready_fd, STDOUT_FILENO, "FREE");
        return 0;
    }
    if (fd < 0 || fcntl(fd, F_OFD_GETLK, &wanted) != 0)
        return say_error(options, "the lock file cannot be asked");
    const char *word = wanted.l_type == F_UNLCK ? "FREE" : "HELD";
    switch (record_read(fd, &record, &why)) {
    case READ_RECORD: return say_record(options, word, &record, 0);
    case READ_GARBLED: return say_garbled(options, why, 0);
    case READ_NOTHING:
        ready_say(&options->ready_fd, STDOUT_FILENO, "%s", word);
        return 0;
    default: return say_error(options, "the lock file cannot be read");
    }
}

/* Is the locked file still the one of that name? One that was removed locks nobody out. */
static bool still_named(int fd, const char *path)
{
    struct stat held;
    struct stat named;

    if (fstat(fd, &held) != 0 || lstat(path, &named) != 0)
        return false;
    errno = ESTALE;
    return held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

static bool state_record(const struct options *options, bool held)
{
    char folder[PATH_MAX];
    char name[PATH_MAX];
    char text[PATH_MAX + 512];

    if (strlen(options->state) >= sizeof folder || strpbrk(options->file, "\"\\") != NULL) {
        errno = EINVAL;
        return false;
    }
    strcpy(folder, options->state);
    strcpy(name, options->state);
    snprintf(text, sizeof text,
             "{\"boot_id\":\"%s\",\"pid\":%d,\"start_ticks\":%" PRIu64 ",\"generation\":%" PRIu64
             ",\"owner\":\"%s\",\"file\":\"%s\",\"held\":%s}\n",
             options->wanted.boot_id, (int)getpid(), start_ticks(getpid()), options->wanted.generation,
             options->wanted.owner, options->file, held ? "true" : "false");
    return file_replace(dirname(folder), basename(name), text);
}

/* Whether it was the accused who held it last, or somebody who took it away from that one already. */
static bool may_take_away(const struct options *options, const struct record *recorded)
{
    size_t kind = strcspn(options->wanted.owner, ":") + 1;

    if (recorded->generation != options->wanted.generation)
        return false;
    return strcmp(recorded->owner, options->take_from) == 0 || strcmp(recorded->owner, options->wanted.owner) == 0
        || (kind <= strlen(options->wanted.owner) && strncmp(recorded->owner, options->wanted.owner, kind) == 0);
}

/* 0 when the record lets us have the lock and tells so on disk; else the exit code, and why has been said. Then the
 * lock is let go first: whoever hears of it may try at once. */
static int claim(struct options *options, int lock)
{
    struct record recorded;
    const char *why = NULL;
    enum reading reading = still_named(lock, options->file) ? record_read(lock, &recorded, &why) : READ_REPLACED;
    bool older = reading == READ_RECORD && recorded.generation > options->wanted.generation;
    bool other = reading == READ_RECORD && recorded.generation == options->wanted.generation
        && strcmp(recorded.owner, options->wanted.owner) != 0;

    if (options->take_from != NULL && reading == READ_NOTHING)
        reading = READ_NEVER_HELD;
    if (options->take_from != NULL && reading == READ_RECORD)
        other = !may_take_away(options, &recorded);
    if ((reading == READ_NOTHING || reading == READ_RECORD) && !older && !other) {
        if (record_write(lock, &options->wanted))
            return 0;
        reading = READ_UNWRITTEN;
    }
    int error = errno;
    close(lock);
    errno = error;
    switch (reading) {
    case READ_REPLACED: return say_error(options, "the lock file was replaced while it was being locked");
    case READ_FAILED: return say_error(options, "the lock file cannot be read");
    case READ_UNWRITTEN: return say_error(options, "the lock file cannot be written");
    case READ_NEVER_HELD: return say_error(options, "nobody has ever held it");
    case READ_GARBLED: return say_garbled(options, why, EXIT_REFUSED);
    default: return say_record(options, older ? "NEWER" : "OTHER", &recorded, EXIT_REFUSED);
    }
}

/* 0 when the lock is held and the record says so; else the exit code, and why has been said. */
static int take(struct options *options)
{
    struct flock wanted = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    struct record recorded;
    const char *why = NULL;
    int create = options->take_from == NULL ? O_CREAT : 0;
    int lock = open(options->file, O_RDWR | create | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0640);

    if (lock < 0)
        return say_error(options, "the lock file cannot be opened");
    if (fcntl(lock, F_OFD_SETLK, &wanted) == 0)
        return claim(options, lock);
    if (errno != EAGAIN && errno != EACCES)
        return say_error(options, "the lock file cannot be locked");
    if (record_read(lock, &recorded, &why) != READ_RECORD)
        recorded = (struct record){ .owner = "?" };
    return say_record(options, "BUSY", &recorded, EXIT_REFUSED);
}

static bool options_read(int count, char *words[], struct options *options)
{
    static const struct option known[] = {
        { "ready-fd", required_argument, NULL, 'r' }, { "cgroup", required_argument, NULL, 'c' },
        { "state", required_argument, NULL, 's' },    { "probe", no_argument, NULL, 'p' },
        { "take-from", required_argument, NULL, 't' }, { NULL, 0, NULL, 0 },
    };
    int option;

    *options = (struct options){ .ready_fd = -1 };
    while ((option = getopt_long(count, words, "", known, NULL)) != -1) {
        if (option == 'c')
            options->cgroup = optarg;
        else if (option == 's')
            options->state = optarg;
        else if (option == 't' && owner_valid(optarg))
            options->take_from = optarg;
        else if (option == 'p')
            options->probe = true;
        else if (option != 'r' || !descriptor_parse(optarg, &options->ready_fd))
            return false;
    }
    if (count - optind != (options->probe ? 1 : 3))
        return false;
    options->file = words[optind];
    if (options->probe)
        return true;
    if (!number_parse(words[optind + 1], INT64_MAX, &options->wanted.generation) || !owner_valid(words[optind + 2]))
        return false;
    strcpy(options->wanted.owner, words[optind + 2]);
    return true;
}

/* It ends by SIGKILL, with the workload, and not by what a terminal or a shutting-down system sends to all. */
static bool signals_hold(void)
{
    sigset_t held;

    sigfillset(&held);
    sigdelset(&held, SIGSEGV);
    sigdelset(&held, SIGBUS);
    sigdelset(&held, SIGFPE);
    sigdelset(&held, SIGILL);
    sigdelset(&held, SIGABRT);
    return sigprocmask(SIG_SETMASK, &held, NULL) == 0;
}

int main(int count, char *words[])
{
    struct options options;

    if (!options_read(count, words, &options)) {
        fprintf(stderr, "usage: outlive-runlock LOCKFILE GENERATION OWNER [--ready-fd N] [--cgroup DIR] "
                        "[--state FILE]\n       outlive-runlock LOCKFILE GENERATION OWNER --take-from HELD_BY "
                        "[--ready-fd N]\n       outlive-runlock --probe LOCKFILE [--ready-fd N]\n");
        return EXIT_USAGE;
    }
    descriptors_close(options.ready_fd);
    if (options.probe)
        return probe(&options);
    (void)setsid(); /* fails only where it is one already */
    if (!signals_hold())
        return say_error(&options, "cannot hold signals back");
    if (options.cgroup != NULL && !cgroup_enter(options.cgroup))
        return say_error(&options, "the cgroup cannot be entered");
    if (!boot_id_read(options.wanted.boot_id))
        return say_error(&options, "cannot learn which boot this is");
    /* Before the lock is asked for, so that no holder exists that a restarted agent could not find. */
    if (options.state != NULL && !state_record(&options, false))
        return say_error(&options, "the state file cannot be written");
    int status = take(&options);
    if (status != 0)
        return status;
    if (options.state != NULL && !state_record(&options, true))
        return say_error(&options, "the state file cannot be written");
    ready_say(&options.ready_fd, STDOUT_FILENO, options.take_from == NULL ? "HELD" : "TAKEN");
    if (options.take_from != NULL)
        return 0;
    (void)streams_close(true); /* or else whoever reads them waits for the lock's end */
    (void)!chdir("/");         /* nor does it hold on to its starter's folder */
    for (;;)
        (void)pause();
}
