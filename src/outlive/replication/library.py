"""The C libraries of this room: found, loaded once, and their functions declared with exact types.

The protocol of each function is in the comment of `native/pages.h` and `native/framehold.h`; nothing else of
Python calls them but `memory`, `tracking`, `kernels` and `frames`. The interpreter's lock is released during
every call. Addresses and sizes are checked by those callers, never here.
"""

import ctypes
import errno
import os
from ctypes import POINTER, c_int, c_int64, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path

from outlive.errors import Failed
from outlive.native import find


class KernelFailed(Failed):
    """A page kernel or the frame hold met an error of the system."""

    id = "replication.kernel"


class Packer(ctypes.Structure):
    """`struct pages_packer` of pages.h."""

    _fields_ = (
        ("ram_pages", c_uint64),
        ("shadow", c_void_p),
        ("tags", c_void_p),
        ("slots", c_uint64),
        ("plain", c_void_p),
        ("lz4_state", c_void_p),
        ("compress", c_uint32),
        ("reserved", c_uint32),
        ("zero", c_uint64),
        ("same", c_uint64),
        ("delta", c_uint64),
        ("raw", c_uint64),
        ("plain_bytes", c_uint64),
        ("packed_bytes", c_uint64),
    )


class Fault(ctypes.Structure):
    """`struct pages_fault` of pages.h."""

    _fields_ = (("code", c_uint32), ("block", c_uint32), ("offset", c_uint64))


COUNTED = (
    "guest_frames", "guest_bytes", "sent_frames", "sent_bytes", "send_dropped", "tap_frames", "tap_bytes",
    "delivered_frames", "deliver_dropped", "kept_frames", "kept_dropped", "copied_frames", "copy_dropped",
    "held_frames", "held_bytes", "full_times", "tap_errno", "guest_errno",
)  # fmt: skip


class Counters(ctypes.Structure):
    """`struct framehold_counters` of framehold.h."""

    _fields_ = tuple((name, c_uint64) for name in COUNTED)


_ANY = c_void_p
_FUNCTIONS: dict[str, tuple[type | None, list[type]]] = {
    "pages_map": (c_int64, [c_int, c_uint64, c_int, POINTER(c_void_p)]),
    "pages_unmap": (c_int64, [_ANY, c_uint64, c_int]),
    "pages_give_back": (c_int64, [_ANY, c_uint64, c_uint64]),
    "pages_scan": (c_int64, [c_int, c_uint64, c_uint64, c_int, _ANY, c_uint64, POINTER(c_uint64)]),
    "pages_compare": (c_int64, [_ANY, _ANY, c_uint64, c_int, c_int, _ANY, c_uint64, POINTER(c_uint64)]),
    "pages_nonzero": (c_int64, [_ANY, c_uint64, c_int, _ANY, c_uint64, _ANY, c_uint64, POINTER(c_uint64)]),
    "pages_copy_out": (c_int64, [_ANY, c_uint64, _ANY, c_uint64, c_uint64, _ANY, _ANY, c_uint64]),
    "pages_scratch_bytes": (c_uint64, []),
    "pages_lz4_state_bytes": (c_uint64, []),
    "pages_packed_bound": (c_uint64, [c_uint64]),
    "pages_encode": (c_int64, [POINTER(Packer), _ANY, _ANY, c_uint64, _ANY, c_uint64]),
    "pages_check": (c_int64, [_ANY, c_uint64, c_uint64, _ANY, POINTER(Fault)]),
    "pages_apply": (c_int64, [_ANY, c_uint64, c_uint64, _ANY, POINTER(Fault), _ANY]),
    "pages_crc32c": (c_uint32, [_ANY, c_uint64, c_int]),
    "framehold_open": (c_int64, [c_int, c_int, c_uint64, c_uint64, c_uint64, c_int, POINTER(c_void_p)]),
    "framehold_close": (None, [_ANY]),
    "framehold_waiting_fd": (c_int, [_ANY]),
    "framehold_copied_fd": (c_int, [_ANY]),
    "framehold_hold": (c_int64, [_ANY]),
    "framehold_free": (c_int64, [_ANY]),
    "framehold_cut": (c_uint64, [_ANY]),
    "framehold_release": (c_int64, [_ANY, c_uint64]),
    "framehold_discard": (c_int64, [_ANY]),
    "framehold_output": (c_int64, [_ANY, c_uint64, c_uint64, _ANY, c_uint64]),
    "framehold_collect": (c_int64, [_ANY]),
    "framehold_deliver": (c_int64, [_ANY, c_uint64]),
    "framehold_forget": (c_int64, [_ANY]),
    "framehold_copy_inbound": (c_int64, [_ANY, c_int]),
    "framehold_take_copied": (c_int64, [_ANY, _ANY, c_uint64]),
    "framehold_inject": (c_int64, [_ANY, _ANY, c_uint64]),
    "framehold_send_out": (c_int64, [_ANY, _ANY, c_uint64]),
    "framehold_count": (None, [_ANY, POINTER(Counters)]),
}  # fmt: skip


@cache
def pages_library() -> ctypes.CDLL:
    """Return the loaded `liboutlive-pages.so`, loading it the first time.

    Raises Failed (id `native.missing`) when it is nowhere, KernelFailed when it does not load.
    """
    path = find("liboutlive-pages.so")
    try:
        library = ctypes.CDLL(str(path), use_errno=True)
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
    except (OSError, AttributeError) as error:
        raise KernelFailed(
            "The library of page kernels, a part of Outlive, cannot be loaded.",
            cause=str(error),
            remedy="in a checkout run ./outlive --version, which builds it; else install Outlive again",
        ) from error
    return library


def pagewatch_path() -> Path:
    """Return the library to preload into QEMU, so that its memory's written pages can be told from outside."""
    return find("libpagewatch.so")


def done(result: int, doing: str) -> int:
    """Return a kernel's result, or raise KernelFailed for -errno.

    doing: what was tried, to follow "cannot": "map the guest's memory".
    """
    if result >= 0:
        return result
    raise KernelFailed(
        f"This host cannot {doing}.", cause=f"{os.strerror(-result)} ({errno.errorcode.get(-result, -result)})"
    )
