"""A Network Block Device server for writes only: how QEMU hands over what a guest writes to its disks.

QEMU mirrors each disk to an export of this server, over a Unix socket in the manager's own folder, and waits for each
reply before the guest's write counts as done; so a reply means that the write is in the journal, and a machine that
`stop` has drained has nothing under way. Reading is refused. One thread a connection, none of which ever touches the
monitor. Fixed newstyle negotiation and simple replies, as described in the protocol's `proto.md`.
"""

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import structlog

MOST_REQUEST_BYTES = 32 << 20
MOST_OPTION_BYTES = 64 * 1024
MOST_CONNECTIONS = 64

_OPTION = struct.Struct(">8sII")
_OPTION_REPLY = struct.Struct(">QIII")
_REQUEST = struct.Struct(">IHHQQI")
_REPLY = struct.Struct(">IIQ")
_OPTION_MAGIC = b"IHAVEOPT"
_OPTION_REPLY_MAGIC = 0x0003E889045565A9
_REQUEST_MAGIC = 0x25609513
_REPLY_MAGIC = 0x67446698

_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_EXPORT_NAME, _ABORT, _INFO, _GO = 1, 2, 6, 7
_ACK, _REPLY_INFO = 1, 3
_UNSUPPORTED, _UNKNOWN, _INVALID = 0x80000001, 0x80000006, 0x80000003
_INFO_EXPORT, _INFO_BLOCK_SIZE = 0, 3
_WRITE, _DISCONNECT, _FLUSH, _TRIM, _WRITE_ZEROES = 1, 2, 3, 4, 6
_HAS_FLAGS, _CAN_TRIM, _CAN_ZERO = 1, 32, 64
# Without _CAN_FLUSH: a reply already means that the write is kept, and QEMU would flush at each `stop`.
_FLAGS = _HAS_FLAGS | _CAN_TRIM | _CAN_ZERO
_EINVAL = 22

_log = structlog.get_logger()


class Export(Protocol):
    """What takes the writes to one disk. Both methods may block, and must not fail."""

    @property
    def size_bytes(self) -> int: ...

    def write(self, offset: int, data: bytearray) -> None: ...

    def zero(self, offset: int, length: int) -> None: ...


class NbdServer:
    """Serves exports at a Unix socket until closed."""

    def __init__(self, path: Path, exports: Mapping[str, Export], owner: tuple[int, int] | None = None) -> None:
        """owner: the user and group that QEMU runs as, who alone may connect besides us; None: ours."""
        self.path = path
        self._exports = dict(exports)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o600)
        if owner is not None:
            os.chown(path, *owner)
        self._listener.listen(16)
        threading.Thread(target=self._accept, name="nbd-accept", daemon=True).start()

    def close(self) -> None:
        """End all connections. QEMU's mirrors fail by it; the guest goes on."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if len(self._open) >= MOST_CONNECTIONS:
                    connection.close()
                    continue
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="nbd", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                export = _negotiate(connection, self._exports)
                if export is not None:
                    _transmit(connection, export)
        except (OSError, EOFError, ValueError) as error:
            _log.info("nbd.ended", because=str(error) or type(error).__name__)
        finally:
            with self._lock:
                self._open.discard(connection)


def _negotiate(connection: socket.socket, exports: Mapping[str, Export]) -> Export | None:
    connection.sendall(b"NBDMAGIC" + _OPTION_MAGIC + struct.pack(">H", _FIXED_NEWSTYLE | _NO_ZEROES))
    (client_flags,) = struct.unpack(">I", _take(connection, 4))
    while True:
        magic, option, length = _OPTION.unpack(_take(connection, _OPTION.size))
        if magic != _OPTION_MAGIC or length > MOST_OPTION_BYTES:
            raise ValueError("no option of the protocol")
        data = bytes(_take(connection, length))
        if option == _EXPORT_NAME:
            export = exports.get(data.decode(errors="replace"))
            if export is None:
                return None
            padding = b"" if client_flags & _NO_ZEROES else bytes(124)
            connection.sendall(struct.pack(">QH", export.size_bytes, _FLAGS) + padding)
            return export
        if option in (_GO, _INFO):
            export = _named(data, exports)
            if export is None:
                _answer(connection, option, _UNKNOWN)
                continue
            _answer(connection, option, _REPLY_INFO, struct.pack(">HQH", _INFO_EXPORT, export.size_bytes, _FLAGS))
            sizes = struct.pack(">HIII", _INFO_BLOCK_SIZE, 1, 4096, MOST_REQUEST_BYTES)
            _answer(connection, option, _REPLY_INFO, sizes)
            _answer(connection, option, _ACK)
            if option == _GO:
                return export
        elif option == _ABORT:
            _answer(connection, option, _ACK)
            return None
        else:
            _answer(connection, option, _UNSUPPORTED)


def _transmit(connection: socket.socket, export: Export) -> None:
    while True:
        magic, _, kind, handle, offset, length = _REQUEST.unpack(_take(connection, _REQUEST.size))
        if magic != _REQUEST_MAGIC:
            raise ValueError("no request of the protocol")
        if kind == _DISCONNECT:
            return
        fault = 0
        within = offset + length <= export.size_bytes
        if kind == _WRITE:
            if length > MOST_REQUEST_BYTES:
                raise ValueError("a request that is too long")
            data = _take(connection, length)
            if within:
                export.write(offset, data)
        elif kind in (_WRITE_ZEROES, _TRIM) and within:
            export.zero(offset, length)
        elif kind != _FLUSH:
            fault = _EINVAL
        if not within and kind != _FLUSH:
            fault = _EINVAL
        connection.sendall(_REPLY.pack(_REPLY_MAGIC, fault, handle))


def _named(data: bytes, exports: Mapping[str, Export]) -> Export | None:
    if len(data) < 4:
        return None
    (length,) = struct.unpack_from(">I", data)
    return exports.get(data[4 : 4 + length].decode(errors="replace"))


def _answer(connection: socket.socket, option: int, kind: int, data: bytes = b"") -> None:
    connection.sendall(_OPTION_REPLY.pack(_OPTION_REPLY_MAGIC, option, kind, len(data)) + data)


def _take(connection: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        got = connection.recv_into(view)
        if not got:
            raise EOFError("the client went away")
        view = view[got:]
    return data
