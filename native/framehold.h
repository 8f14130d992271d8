/* The frames of one protected guest's port, between its QEMU (a Unix datagram socket) and a tap.
 *
 *   guest → outside   into a ring, and from there to the tap: at once while free, in hold only up to a released mark
 *   outside → guest   into a ring, and from there to QEMU: at once, or on a standby kept until delivered
 *
 * A mark is a place in the outgoing ring and only grows. A thread of its own moves the frames. In hold no frame
 * behind the released mark reaches the tap: that is the promise to whoever talks with the guest. A full outgoing ring
 * is not read into, so QEMU waits; a guest that does not take frames makes the tap wait. Neither loses a frame.
 *
 * Lists of frames are bytes: each frame after its length (u32, little endian). All results are counts or -errno.
 * Any thread may call. Descriptors stay the caller's; they become non-blocking. Nothing but open and inject
 * allocates. The guest's socket should be connected to QEMU's: then QEMU's frames are not limited to the queue length
 * net.unix.max_dgram_qlen, and we are told when QEMU has room again. */
#ifndef OUTLIVE_FRAMEHOLD_H
#define OUTLIVE_FRAMEHOLD_H

#include <stdint.h>

/* What the library shows to Python. */
#pragma GCC visibility push(default)

struct framehold;

enum {
    FRAME_MOST = 69632, /* QEMU's own limit */
    RING_LEAST = 256 * 1024,
    INJECT_MOST = 8 * 1024 * 1024,
};

struct framehold_counters {
    uint64_t guest_frames, guest_bytes;                     /* taken from the guest */
    uint64_t sent_frames, sent_bytes, send_dropped;         /* to the tap; refused by it */
    uint64_t tap_frames, tap_bytes;                         /* taken from the tap */
    uint64_t delivered_frames, deliver_dropped;             /* to the guest; no QEMU was there */
    uint64_t kept_frames, kept_dropped;                     /* while collecting; the oldest, for want of room */
    uint64_t copied_frames, copy_dropped;                   /* aside, for the standby; for want of room */
    uint64_t held_frames, held_bytes;                       /* at present in the outgoing ring */
    uint64_t full_times;                                    /* the outgoing ring had no room */
    uint64_t tap_errno, guest_errno;                        /* why that end is no longer read */
};

/* Begins to move frames: outgoing ones free, incoming ones delivered or, with `collect`, kept. Rings are at least
 * RING_LEAST bytes. */
int64_t framehold_open(int tap_fd, int guest_fd, uint64_t held_bytes, uint64_t inbound_bytes, uint64_t copied_bytes,
                       int collect, struct framehold **opened);
void framehold_close(struct framehold *hold);

/* Readable once a frame is held that came after the last cut; once a frame was copied aside. Not to be read. */
int framehold_waiting_fd(const struct framehold *hold);
int framehold_copied_fd(const struct framehold *hold);

int64_t framehold_hold(struct framehold *hold);
int64_t framehold_free(struct framehold *hold);

/* Takes what the guest, which stands still, has sent so far, and returns the mark behind it. */
uint64_t framehold_cut(struct framehold *hold);

/* Sends up to the mark. -EINVAL for one that is still to come. */
int64_t framehold_release(struct framehold *hold, uint64_t mark);

/* Forgets what is held behind the released mark. */
int64_t framehold_discard(struct framehold *hold);

/* The frames between two marks as a list. -ESTALE when some are gone, -ENOSPC when they do not fit. */
int64_t framehold_output(struct framehold *hold, uint64_t after, uint64_t until, uint8_t *into, uint64_t room);

int64_t framehold_collect(struct framehold *hold);
int64_t framehold_deliver(struct framehold *hold, uint64_t most_age_ns);
int64_t framehold_forget(struct framehold *hold);

int64_t framehold_copy_inbound(struct framehold *hold, int on);
int64_t framehold_take_copied(struct framehold *hold, uint8_t *into, uint64_t room);

/* To the guest before any other frame; to the tap now, past what is held (returns how many it took).
 * -EBADMSG when it is no list of frames, -ENOBUFS when too much waits already. */
int64_t framehold_inject(struct framehold *hold, const uint8_t *frames, uint64_t size);
int64_t framehold_send_out(struct framehold *hold, const uint8_t *frames, uint64_t size);

void framehold_count(struct framehold *hold, struct framehold_counters *counters);

#pragma GCC visibility pop

#endif
