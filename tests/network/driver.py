"""A program that does in its network namespace what a test asks for, one JSON object a line.

Requests: {"id", "call", "arguments"}; answers: {"id", "result"} or {"id", "error", "sentence"}. Calls run at the
same time, as in an agent. Ends when its standard input does, and when the test's process dies.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import structlog

from outlive.cluster.overlay import Wiring
from outlive.errors import OutliveError
from outlive.network.address import VirtualAddress, complete, parse
from outlive.network.kernel_addresses import KernelAddresses
from outlive.network.link_watch import LinkWatch
from outlive.network.overlay import Overlay
from outlive.network.tap import Taps, Wanted
from outlive.network.virtual_ip import VirtualIps, boot_time_s

PR_SET_PDEATHSIG = 1
OUR_FRAMES = b"\x88\xb5"
PATIENCE_S, LITTLE_S = 20.0, 0.1
TUN_SET_INTERFACE, TAP_WITHOUT_INFO = 0x400454CA, 0x1002


class Driver:
    def __init__(self, addresses: VirtualIps) -> None:
        self.addresses = addresses
        self.link_changes: asyncio.Queue[list[str]] = asyncio.Queue(1000)
        self.overlays: dict[str, Overlay] = {}
        self.taps = Taps()
        self.open_taps: dict[str, int] = {}

    async def do(self, call: str, arguments: list[Any]) -> object:
        return await getattr(self, call)(*arguments)

    async def resolve(self, text: str, interface: str | None = None) -> str:
        return str(await self.addresses.resolve(text, interface))

    async def add(self, text: str, lifetime_s: float, begun_ago_s: float | None = None) -> bool:
        begun_s = None if begun_ago_s is None else boot_time_s() - begun_ago_s
        return await self.addresses.add(_address(text), lifetime_s, counted_from_s=begun_s)

    async def renew(self, text: str, lifetime_s: float, begun_ago_s: float | None = None) -> None:
        begun_s = None if begun_ago_s is None else boot_time_s() - begun_ago_s
        await self.addresses.renew(_address(text), lifetime_s, counted_from_s=begun_s)

    async def keep_renewing(self, text: str, lifetime_s: float) -> None:
        while True:
            await self.addresses.renew(_address(text), lifetime_s)
            await asyncio.sleep(lifetime_s / 8)

    async def remove(self, text: str) -> bool:
        return await self.addresses.remove(_address(text))

    async def ours(self) -> list[str]:
        return sorted(map(str, await self.addresses.ours()))

    async def reconcile(self, expected: list[str]) -> list[str]:
        return sorted(map(str, await self.addresses.reconcile(map(_address, expected))))

    async def detect_duplicate(self, text: str, timeout_s: float = 0.3) -> str | None:
        return await self.addresses.detect_duplicate(_address(text), timeout_s)

    async def refuse_duplicate(self, text: str) -> None:
        await self.addresses.refuse_duplicate(_address(text))

    async def announce(self, text: str, repeats: int, interval_s: float) -> int:
        return await self.addresses.announce(_address(text), repeats, interval_s)

    async def take_over(self, text: str) -> dict[str, float]:
        """What a takeover does, in milliseconds for each step."""
        address, times = _address(text), [time.monotonic()]
        assert await self.addresses.detect_duplicate(address) is None
        times.append(time.monotonic())
        await self.addresses.add(address, 4.0)
        times.append(time.monotonic())
        await self.addresses.announce(address, 1)
        times.append(time.monotonic())
        steps = ("detect_ms", "add_ms", "announce_ms")
        return {step: (after - before) * 1000 for step, before, after in zip(steps, times, times[1:], strict=False)}

    async def longest_pause_while_probing(self, text: str) -> float:
        """The longest that the loop did not run, in milliseconds, while neighbours were asked."""
        asking = asyncio.create_task(self.addresses.detect_duplicate(_address(text)))
        longest_s, last_s = 0.0, time.monotonic()
        while not asking.done():
            await asyncio.sleep(0.001)
            now_s = time.monotonic()
            longest_s, last_s = max(longest_s, now_s - last_s), now_s
        await asking
        return longest_s * 1000

    async def add_as_another_program(self, text: str, tag: int) -> bool:
        """Add an address with a lifetime, and another's tag."""
        return await asyncio.to_thread(KernelAddresses().add, _address(text), 999, tag)

    async def talk_to(self, ip: str) -> None:
        """Send a datagram, so that the neighbour table learns where the address is."""
        family = socket.AF_INET if ip_address(ip).version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as talking, contextlib.suppress(OSError):
            talking.sendto(b"hello", (ip, 9))

    async def update(self, address: str, wiring: dict[str, object], look_again: bool = False) -> object:
        if address not in self.overlays:
            self.overlays[address] = Overlay(address)
        updated = await self.overlays[address].update(msgspec.convert(wiring, Wiring), look_again=look_again)
        return msgspec.to_builtins(updated)

    async def take(self, address: str, vni: int, mac: str, generation: int, pairing: int) -> bool:
        return await self.overlays[address].take(vni, mac, (generation, pairing))

    async def ensure_tap(self, wanted: dict[str, object]) -> object:
        return msgspec.to_builtins(await self.taps.ensure(msgspec.convert(wanted, Wanted)))

    async def remove_tap(self, workload: str, nic: str) -> bool:
        return await self.taps.remove(workload, nic)

    async def our_taps(self) -> object:
        return msgspec.to_builtins(await self.taps.ours())

    async def reconcile_taps(self, expected: list[tuple[str, str]]) -> object:
        return msgspec.to_builtins(await self.taps.reconcile((workload, nic) for workload, nic in expected))

    async def announce_machine(self, bridge: str, mac: str, ips: list[str]) -> int:
        return await self.taps.announce_machine(bridge, mac, map(ip_address, ips), repeats=2, interval_s=0.01)

    async def open_tap(self, name: str) -> None:
        """Be the machine behind a tap."""
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(descriptor, TUN_SET_INTERFACE, struct.pack("16sH22x", name.encode(), TAP_WITHOUT_INFO))
        self.open_taps[name] = descriptor

    async def close_tap(self, name: str) -> None:
        os.close(self.open_taps.pop(name))

    async def send(self, tap: str, source: str, destination: str, text: str) -> None:
        macs = bytes.fromhex((destination + source).replace(":", ""))
        os.write(self.open_taps[tap], macs + OUR_FRAMES + text.encode().ljust(46, b"\0"))

    async def send_many(self, tap: str, source: str, destination: str, count: int, interval_s: float) -> None:
        for number in range(count):
            await self.send(tap, source, destination, str(number))
            await asyncio.sleep(interval_s)

    async def heard(self, tap: str, count: int, ethertype: str) -> list[str]:
        """The texts of the frames that came to the machine: so many, waiting long for them, and what else came by then.

        For none, and after the last, waits a little whether another comes.
        """
        found: list[str] = []
        until_s = time.monotonic() + (PATIENCE_S if count else LITTLE_S)
        while time.monotonic() < until_s:
            try:
                frame = os.read(self.open_taps[tap], 65536)
            except BlockingIOError:
                await asyncio.sleep(0.005)
                continue
            if frame[12:14].hex() == ethertype:
                found.append(frame[14:].rstrip(b"\0").decode(errors="replace"))
                if len(found) >= count:
                    until_s = time.monotonic() + LITTLE_S
        return found

    async def next_link_change(self) -> list[str]:
        return await asyncio.wait_for(self.link_changes.get(), 20)

    async def watch(self, changes: LinkWatch) -> None:
        async for change in changes:
            await self.link_changes.put([change.interface, change.state.value])


def _address(text: str) -> VirtualAddress:
    return complete(parse(text), ())


def _say(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)


async def _answer(driver: Driver, request: dict[str, Any]) -> None:
    try:
        _say({"id": request["id"], "result": await driver.do(request["call"], request["arguments"])})
    except OutliveError as error:
        _say({"id": request["id"], "error": error.id, "sentence": str(error)})


async def main(options: dict[str, Any]) -> None:
    requests = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    remembered_in = Path(options.pop("remembered_in")) if "remembered_in" in options else None
    async with (
        VirtualIps(remembered_in=remembered_in, **options) as addresses,
        LinkWatch() as changes,
        asyncio.TaskGroup() as tasks,
    ):
        driver = Driver(addresses)
        running = {tasks.create_task(driver.watch(changes))}
        _say({"id": 0, "result": "ready"})
        while line := await requests.readline():
            running.add(tasks.create_task(_answer(driver, json.loads(line))))
        for task in running:
            task.cancel()


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != 1:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
        asyncio.run(main(json.loads(sys.argv[1])))
