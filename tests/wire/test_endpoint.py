"""The UDP socket takes anything that arrives, and gives on only what is accepted."""

import asyncio
import os
import socket
import time
from collections.abc import Callable

import pytest

from outlive.cluster.heartbeat import Heartbeat
from outlive.wire.datagram import Message, pack
from outlive.wire.endpoint import Address, EndpointUnavailable, open_endpoint
from outlive.wire.receiver import Receiver
from outlive.wire.record import Reason
from outlive.wire.seal import Seal

Build = Callable[..., Heartbeat]


class Inbox:
    """A handler that keeps what it is given."""

    def __init__(self) -> None:
        self.got: list[tuple[Message, Address]] = []

    def __call__(self, message: Message, source: Address, at: float) -> None:
        self.got.append((message, source))

    async def wait_for(self, count: int) -> None:
        await until(lambda: len(self.got) >= count)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_heartbeat_arrives(seal: Seal, heartbeat: Build, address: str) -> None:
    inbox = Inbox()
    with (
        open_endpoint(Address(address, 0), Receiver(seal, "a"), Inbox(), time.monotonic) as a,
        open_endpoint(Address(address, 0), Receiver(seal, "b"), inbox, time.monotonic) as b,
    ):
        assert a.send(pack(heartbeat(), seal), b.local)
        await inbox.wait_for(1)
        assert inbox.got == [(heartbeat(), a.local)]
        assert (a.counts.sent, b.counts.accepted, b.counts.refused) == (1, 1, 0)


async def test_an_endpoint_for_all_addresses_hears_both_families(seal: Seal, heartbeat: Build) -> None:
    inbox = Inbox()
    with (
        open_endpoint(Address("::", 0), Receiver(seal, "b"), inbox, time.monotonic) as everywhere,
        open_endpoint(Address("127.0.0.1", 0), Receiver(seal, "a"), Inbox(), time.monotonic) as four,
        open_endpoint(Address("::1", 0), Receiver(seal, "a"), Inbox(), time.monotonic) as six,
    ):
        four.send(pack(heartbeat(1), seal), Address("127.0.0.1", everywhere.local.port))
        await inbox.wait_for(1)
        six.send(pack(heartbeat(2, host="c"), seal), Address("::1", everywhere.local.port))
        await inbox.wait_for(2)
        assert [source for _, source in inbox.got] == [four.local, six.local]
        assert everywhere.send(b"x", four.local)


async def test_garbage_of_every_kind_is_counted_and_the_next_heartbeat_heard(
    seal: Seal, wrong_key: Seal, foreign: Seal, heartbeat: Build
) -> None:
    inbox = Inbox()
    whole = pack(heartbeat(9), seal)
    garbage = [
        b"",
        b"\0",
        whole[:-1],
        whole[:3] + b"\xff" + whole[4:],
        bytes(60_000),
        b"OL\x02" + whole[3:],
        pack(heartbeat(9), wrong_key),
        pack(heartbeat(9, cluster=foreign.cluster), foreign),
    ]
    with (
        open_endpoint(Address("127.0.0.1", 0), Receiver(seal, "b"), inbox, time.monotonic) as b,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        for datagram in garbage:
            sender.sendto(datagram, ("127.0.0.1", b.local.port))
        sender.sendto(whole, ("127.0.0.1", b.local.port))
        sender.sendto(whole, ("127.0.0.1", b.local.port))
        await inbox.wait_for(1)
        await until(lambda: b.counts.refused == len(garbage) + 1)
        assert [message for message, _ in inbox.got] == [heartbeat(9)]
        assert b.refusals.by_reason == {
            Reason.TOO_SHORT: 2,
            Reason.TRUNCATED: 1,
            Reason.WRONG_TAG: 2,
            Reason.TOO_LARGE: 1,
            Reason.OTHER_VERSION: 1,
            Reason.FOREIGN_CLUSTER: 1,
            Reason.REPLAYED: 1,
        }


async def test_a_socket_that_gives_nothing_but_errors_stalls_nobody_and_is_heard_again(
    seal: Seal, heartbeat: Build
) -> None:
    inbox = Inbox()
    with (
        open_endpoint(Address("127.0.0.1", 0), Receiver(seal, "a"), Inbox(), time.monotonic) as a,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kept,
        open_endpoint(Address("127.0.0.1", 0), Receiver(seal, "b"), inbox, time.monotonic) as b,
    ):
        number = b._sock.fileno()
        b.rest()
        os.dup2(number, kept.fileno())
        reading, writing = os.pipe()
        os.dup2(reading, number)  # it is no socket any more
        b.listen()
        os.write(writing, b"something to read")
        await until(lambda: b._failing)
        os.dup2(kept.fileno(), number)
        a.send(pack(heartbeat(), seal), b.local)
        await inbox.wait_for(1)
        assert not b._failing
        for each in (reading, writing):
            os.close(each)


async def test_a_flood_neither_stalls_the_loop_nor_grows_memory(seal: Seal, heartbeat: Build) -> None:
    inbox = Inbox()
    with (
        open_endpoint(Address("127.0.0.1", 0), Receiver(seal, "b"), inbox, time.monotonic) as b,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        for _ in range(40):
            for _ in range(100):
                sender.sendto(b"garbage", ("127.0.0.1", b.local.port))
            await asyncio.sleep(0)
        await until(lambda: b.counts.refused >= 64)
        sent = 0
        while not inbox.got:  # until the kernel's buffer has room for it
            sent += 1
            assert sent < 10_000
            sender.sendto(pack(heartbeat(sent), seal), ("127.0.0.1", b.local.port))
            await asyncio.sleep(0.002)


async def test_a_port_where_nobody_listens_harms_nothing(seal: Seal, heartbeat: Build) -> None:
    inbox = Inbox()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = Address("127.0.0.1", closed.getsockname()[1])
    with (
        open_endpoint(Address("127.0.0.1", 0), Receiver(seal, "a"), Inbox(), time.monotonic) as a,
        open_endpoint(Address("127.0.0.1", 0), Receiver(seal, "b"), inbox, time.monotonic) as b,
    ):
        for _ in range(5):
            a.send(b"x", nobody)
            await asyncio.sleep(0.001)
        a.send(pack(heartbeat(), seal), b.local)
        await inbox.wait_for(1)


@pytest.mark.parametrize(
    "to",
    [
        Address("::1", 9),
        Address("no-address", 9),
        Address("127.0.0.1", 70_000),
        Address("203.0.113.1", 0),
        Address("", 9),
    ],
)
async def test_what_cannot_be_sent_is_counted_and_not_raised(seal: Seal, to: Address) -> None:
    with open_endpoint(Address("127.0.0.1", 0), Receiver(seal, "a"), Inbox(), time.monotonic) as a:
        assert a.send(b"x" * 100, to) is False
        assert a.counts.unsent == 1


async def test_what_is_too_large_to_send_is_not_raised(seal: Seal) -> None:
    with open_endpoint(Address("127.0.0.1", 0), Receiver(seal, "a"), Inbox(), time.monotonic) as a:
        assert a.send(b"x" * 70_000, a.local) is False


async def test_a_failing_handler_does_not_stop_the_endpoint(seal: Seal, heartbeat: Build) -> None:
    raised: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context["exception"]))
    heard: list[int] = []

    def failing(message: Message, source: Address, at: float) -> None:
        heard.append(message.sequence)
        raise RuntimeError("a mistake elsewhere")

    with (
        open_endpoint(Address("127.0.0.1", 0), Receiver(seal, "a"), Inbox(), time.monotonic) as a,
        open_endpoint(Address("127.0.0.1", 0), Receiver(seal, "b"), failing, time.monotonic) as b,
    ):
        a.send(pack(heartbeat(1), seal), b.local)
        a.send(pack(heartbeat(2), seal), b.local)
        await until(lambda: len(heard) == 2)
    assert [str(error) for error in raised] == ["a mistake elsewhere"] * 2


async def test_an_address_in_use_or_of_another_machine_is_a_clear_error(seal: Seal) -> None:
    with open_endpoint(Address("127.0.0.1", 0), Receiver(seal, "a"), Inbox(), time.monotonic) as a:
        for local in (a.local, Address("203.0.113.1", 7), Address("nonsense", 7)):
            with (
                pytest.raises(EndpointUnavailable, match=local.address) as raised,
                open_endpoint(local, Receiver(seal, "b"), Inbox(), time.monotonic),
            ):
                pass
            assert raised.value.cause
            assert raised.value.remedy
