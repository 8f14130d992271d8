"""Watching the host's interfaces, so that virtual IPs are announced again when a link comes back.

Reads the kernel's notices (RTMGRP_LINK) without blocking the loop. Nothing here can grow without bound: notices
wait in the socket's buffer, changes that nobody has taken yet wait one for each interface, the newest in place of
the older; and when the kernel had to drop notices, all interfaces are read again, in a thread.
"""

import asyncio
import errno
import socket
from types import TracebackType
from typing import Self

import structlog

from outlive.network.errors import KernelSlow, PacketRefused
from outlive.network.links import Link, LinkChange, LinkTable, dump_request, parse
from outlive.network.workers import Workers

_NETLINK_ROUTE, _LINKS = 0, 1
_LONGEST_DATAGRAM = 64 * 1024
_BUFFER_BYTES = 256 * 1024
_MOST_DISCARDED = 10_000
_LIST_LIMIT_S = 2.0
_PAUSE_AFTER_FAILURE_S = 1.0

log = structlog.get_logger()


class LinkWatch:
    """The changes of this host's interfaces from now on: `async with LinkWatch() as changes: async for ...`.

    Yields a `LinkChange` for each interface that is running again, down, or gone; never ends by itself.
    """

    def __init__(self) -> None:
        self._workers = Workers("link-watch", 1)
        self._waiting: dict[str, LinkChange] = {}
        self._table = LinkTable()
        self._notices: socket.socket | None = None

    async def __aenter__(self) -> Self:
        self._notices = _netlink_socket(_LINKS)
        self._notices.setblocking(False)
        try:
            self._table = LinkTable(await self._list())
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LinkChange:
        while not self._waiting:
            await self._read()
        interface = next(iter(self._waiting))
        return self._waiting.pop(interface)

    async def _read(self) -> None:
        """Wait for one datagram and take in what it tells."""
        assert self._notices is not None, "a LinkWatch is used inside its `async with`"
        loop = asyncio.get_running_loop()
        try:
            datagram, sender = await loop.sock_recvfrom(self._notices, _LONGEST_DATAGRAM)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            log.warning("link_watch.notices_lost")
            self._discard_notices()
            await self._read_all_again()
            return
        if sender[0] != 0:
            return  # not from the kernel
        try:
            links, _ = parse(datagram)
        except PacketRefused as refusal:
            log.warning("link_watch.notice_refused", because=str(refusal))
            await self._read_all_again()
            return
        self._keep(self._table.learn(links))

    def _discard_notices(self) -> None:
        """Empty the socket: until then the kernel drops further notices without saying so again."""
        assert self._notices is not None
        for _ in range(_MOST_DISCARDED):
            try:
                self._notices.recv(1)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    async def _read_all_again(self) -> None:
        while True:
            try:
                links = await self._list()
            except (KernelSlow, OSError, PacketRefused) as error:
                log.warning("link_watch.listing_failed", because=str(error))
                await asyncio.sleep(_PAUSE_AFTER_FAILURE_S)
            else:
                self._keep(self._table.replace(links))
                return

    def _keep(self, changes: list[LinkChange]) -> None:
        for change in changes:
            self._waiting.pop(change.interface, None)
            self._waiting[change.interface] = change

    async def _list(self) -> list[Link]:
        return await self._workers.run("list the interfaces", _list_links, _LIST_LIMIT_S)

    def _close(self) -> None:
        if self._notices is not None:
            self._notices.close()
        self._workers.close()


def _list_links() -> list[Link]:
    """All interfaces, as the kernel answers a request for them. Blocks."""
    with _netlink_socket(0) as asking:
        asking.settimeout(_LIST_LIMIT_S)
        asking.send(dump_request())
        found: list[Link] = []
        done = False
        while not done:
            links, done = parse(asking.recv(_LONGEST_DATAGRAM))
            found.extend(links)
        return found


def _netlink_socket(groups: int) -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE)
    try:
        netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        netlink.bind((0, groups))
        netlink.connect((0, 0))
    except OSError:
        netlink.close()
        raise
    return netlink
