"""Guest pages on their way to a standby or a checkpoint: copied out, packed, checked, applied.

A thin binding of `native/pages.c`; `memory` has what these work on, `tracking` tells which pages. The one part that
a guest must stand still for is `Staging.copy_out`; `Packer.encode` works on the copy afterwards. A packed frame
tells its own length and carries a checksum. It is applied in two steps, `check` and `apply`: the first accepts or
refuses it as a whole, and only what it accepted can be applied. Applying one twice does no harm.

    runs = tracker.scan(Runs.for_pages(memory.pages))        # guest stands
    staging.copy_out(tracker.source, runs)                   # guest stands
    packed = packer.encode(staging)                          # guest runs again
    ...
    apply(check(packed, memory.pages), memory)               # on the standby

Policy (what to do about a refused frame, when to forget what the standby holds) is the caller's.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from outlive.errors import Failed
from outlive.replication.library import Fault, done, pages_library
from outlive.replication.library import Packer as PackerState
from outlive.replication.memory import MOST_PAGES, PAGE_BYTES, Memory, Runs

Bytes = bytes | bytearray | memoryview

# The beginning of a packed frame, from which `packed_size` tells its length.
HEADER_BYTES = 40
MAGIC = b"OLPG"

# Why a frame is refused, by the code in `pages.h`.
FAULTS = (
    "nothing is wrong",
    "it is shorter than its header",
    "it does not begin as a packed frame",
    "its length is not what its header says",
    "its checksum is wrong",
    "it is for a RAM of another size",
    "it counts more or fewer pages than it has",
    "a block is longer than it may be or reaches beyond the end",
    "a block cannot be decompressed",
    "a page is of a kind that does not exist",
    "a page is beyond the end of RAM",
    "its pages do not grow",
    "a page's content is longer or shorter than it says",
    "the change of a page reaches beyond the page",
)


class PackedInvalid(Failed):
    """A packed frame is not whole or not for this RAM; nothing of it was applied."""

    id = "replication.packed-invalid"


@dataclass(frozen=True, slots=True)
class PackCounts:
    """What became of the pages of one `encode`; `same` ones were left out, as the other side holds them."""

    zero: int
    same: int
    delta: int
    raw: int
    plain_bytes: int
    packed_bytes: int


class Staging:
    """Room for copies of pages and their numbers, used again each epoch. Not for two threads at a time."""

    def __init__(self, capacity_pages: int) -> None:
        """Reserve room for so many pages; it costs RAM as far as it was ever used, see `give_back`."""
        self.capacity_pages = capacity_pages
        self.pages = 0
        self._numbers = Memory.allocate(capacity_pages * 4)
        self._data = Memory.allocate(capacity_pages * PAGE_BYTES)

    def copy_out(self, source: Memory, runs: Runs, skip_pages: int = 0) -> int:
        """Copy the pages of `runs` but for the first `skip_pages`, as many as there is room for.

        source: usually `tracker.source`. Returns how many were copied, which replace those held before.
        Where that is less than `runs.pages - skip_pages`, encode and go on with a greater `skip_pages`.
        Raises KernelFailed for runs that reach beyond `source`, or do not grow.
        """
        self.pages = 0
        copied = pages_library().pages_copy_out(
            source.address, source.pages, runs.memory.address, runs.count, skip_pages,
            self._numbers.address, self._data.address, self.capacity_pages,
        )  # fmt: skip
        self.pages = done(copied, "copy the guest's pages")
        return self.pages

    def give_back(self, keep_pages: int = 0) -> None:
        """Return to the system what room beyond `keep_pages` costs; what was copied is lost."""
        self.pages = 0
        self._numbers.give_back(keep_pages * 4)
        self._data.give_back(keep_pages * PAGE_BYTES)

    @property
    def numbers(self) -> memoryview:
        """The numbers of the pages held, as unsigned 32-bit integers."""
        return self._numbers.view.cast("I")[: self.pages]

    @property
    def data(self) -> memoryview:
        """The pages held, one after the other, in bytes."""
        return self._data.view[: self.pages * PAGE_BYTES]

    @property
    def addresses(self) -> tuple[int, int]:
        """Where numbers and pages are, for kernels."""
        return self._numbers.address, self._data.address


class Packer:
    """Packs staged pages for one receiver: zero, change against what it holds, or whole; compressed where it pays.

    With a shadow it remembers what the receiver holds, so that only changed words go out. It remembers at `encode`:
    whoever does not send what was encoded, or learns that it did not arrive, must `forget`.
    """

    def __init__(self, ram_pages: int, *, shadow_bytes: int = 0, compress: bool = True, room_pages: int = 0) -> None:
        """Make one for a guest of `ram_pages` pages.

        shadow_bytes: how much memory to spend on remembering; 0 none, the RAM's size remembers every page.
        room_pages:   the largest staging to be encoded; 0 stands for all of RAM (it costs what is used).
        """
        assert 0 < ram_pages <= MOST_PAGES
        kernels = pages_library()
        slots = min(ram_pages, shadow_bytes // PAGE_BYTES)
        self.ram_pages = ram_pages
        self._out = Memory.allocate(kernels.pages_packed_bound(room_pages or ram_pages))
        self._plain = Memory.allocate(kernels.pages_scratch_bytes())
        self._lz4 = Memory.allocate(kernels.pages_lz4_state_bytes())
        self._shadow = Memory.allocate(slots * PAGE_BYTES) if slots else None
        self._tags = Memory.allocate(slots * 4) if slots else None
        self._state = PackerState(
            ram_pages=ram_pages,
            shadow=self._shadow.address if self._shadow else None,
            tags=self._tags.address if self._tags else None,
            slots=slots,
            plain=self._plain.address,
            lz4_state=self._lz4.address,
            compress=int(compress),
        )

    def encode(self, staging: Staging) -> memoryview:
        """Pack what is staged into one frame, which stands until the next `encode`: send or copy it before.

        Raises KernelFailed when the frame has no room or a page's number is beyond RAM.
        """
        numbers, data = staging.addresses
        length = pages_library().pages_encode(
            ctypes.byref(self._state), numbers, data, staging.pages, self._out.address, self._out.size_bytes
        )
        return self._out.view[: done(length, "pack the guest's pages")].toreadonly()

    def forget(self) -> None:
        """Hold nothing about the receiver any more: the next pages go out whole."""
        if self._tags:
            self._tags.give_back()

    def give_back(self, keep_bytes: int = 0) -> None:
        """Return to the system what the last frame's room costs beyond `keep_bytes`; that frame is lost."""
        self._out.give_back(keep_bytes)

    @property
    def counts(self) -> PackCounts:
        """What became of the pages of the last `encode`."""
        state = self._state
        return PackCounts(state.zero, state.same, state.delta, state.raw, state.plain_bytes, state.packed_bytes)


@dataclass(frozen=True, slots=True)
class Checked:
    """A packed frame that `check` accepted. Whoever changes its bytes afterwards breaks the promise of `apply`."""

    packed: Bytes
    ram_pages: int
    pages: int


def packed_size(header: Bytes) -> int:
    """Return the length in bytes of the packed frame that begins with these HEADER_BYTES.

    Raises PackedInvalid when none begins so; the length itself is as trustworthy as its sender until `check`.
    """
    if len(header) < HEADER_BYTES or bytes(header[:4]) != MAGIC:
        raise PackedInvalid("What came is not a packed frame of pages.", cause=FAULTS[2])
    return int.from_bytes(header[8:16], "little")


def check(packed: Bytes, ram_pages: int) -> Checked:
    """Accept a packed frame as whole, unharmed and for a RAM of `ram_pages` pages.

    Raises PackedInvalid, with what is wrong and where, else.
    """
    fault = Fault()
    with _bytes_at(packed) as (address, length):
        pages = pages_library().pages_check(address, length, ram_pages, _scratch().address, ctypes.byref(fault))
    if pages < 0:
        raise _refused(fault)
    return Checked(packed, ram_pages, pages)


def apply(checked: Checked, memory: Memory) -> int:
    """Write an accepted frame's pages into RAM, and return how many they were.

    memory: writable, of the size that was checked for. Nothing outside it is ever written.
    """
    assert memory.writable
    assert memory.pages == checked.ram_pages
    fault = Fault()
    with _bytes_at(checked.packed) as (address, length):
        pages = pages_library().pages_apply(
            address, length, checked.ram_pages, _scratch().address, ctypes.byref(fault), memory.address
        )
    if pages < 0:
        raise _refused(fault)
    return int(pages)


def checksum(data: Bytes, *, by_tables: bool = False) -> int:
    """Return the CRC-32C of bytes, about ten times as fast as `zlib.crc32`; by_tables: without the instruction."""
    with _bytes_at(data) as (address, length):
        return int(pages_library().pages_crc32c(address, length, int(by_tables)))


_of_thread = threading.local()


def _scratch() -> Memory:
    """Room to decompress one block in, for each thread its own."""
    made: Memory | None = getattr(_of_thread, "scratch", None)
    if made is None:
        made = _of_thread.scratch = Memory.allocate(pages_library().pages_scratch_bytes())
    return made


class _Buffer(ctypes.Structure):
    """Python's own `Py_buffer`, which reaches read-only bytes without a copy."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_void_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


@contextmanager
def _bytes_at(packed: Bytes) -> Iterator[tuple[int | None, int]]:
    """Hold contiguous bytes where they are, and tell their address and length."""
    buffer = _Buffer()
    python = ctypes.pythonapi
    python.PyObject_GetBuffer(ctypes.py_object(packed), ctypes.byref(buffer), 0)
    try:
        yield buffer.buf, buffer.len
    finally:
        python.PyBuffer_Release(ctypes.byref(buffer))


def _refused(fault: Fault) -> PackedInvalid:
    why = FAULTS[fault.code] if fault.code < len(FAULTS) else f"fault {fault.code}"
    return PackedInvalid(
        "A packed frame of pages was refused; nothing of it was applied.",
        cause=f"{why} (block {fault.block}, byte {fault.offset})",
    )
