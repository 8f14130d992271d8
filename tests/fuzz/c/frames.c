/* Lists of frames, as a peer sends them: put out to a tap and given to a guest, for both of which sockets stand in. */
#include <sys/socket.h>
#include <unistd.h>

#include "framehold.h"
#include "target.h"

static void drain(int fd)
{
    static char frame[FRAME_MOST];
    while (recv(fd, frame, sizeof frame, MSG_DONTWAIT) >= 0)
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct framehold *hold;
    static int tap[2], guest[2];

    if (hold == NULL
        && (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, tap) || socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, guest)
            || framehold_open(tap[0], guest[0], RING_LEAST, RING_LEAST, RING_LEAST, 0, &hold)))
        abort();
    uint8_t *copy = copied(data, size);
    if (framehold_send_out(hold, copy, size) > 0)
        drain(tap[1]);
    framehold_inject(hold, copy, size);
    drain(guest[1]);
    free(copy);
    return 0;
}
