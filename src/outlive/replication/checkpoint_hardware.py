"""The hardware of a machine as a checkpoint tells it, read from the very command line that makes it.

Pure. What a guest or QEMU's saved state can tell apart is kept; files, sockets, taps and ids of one host are not.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise

from .checkpoint import Hardware

_SEEN = ("-device", "-global", "-boot", "-uuid", "-rtc")
_HIDDEN_BOARD = ("memory-backend", "dump-guest-core")


def hardware_of(words: Sequence[str], emulator: str, memory_mib: int, cpus: int) -> Hardware:
    """What these words to QEMU make.

    words: program and arguments.  emulator: QEMU's version as in 7.2.22.
    ValueError when the words name no board, processor or accelerator.
    """
    board, *values = _value(words, "-machine").split(",")
    told = [f"-machine {value}" for value in values if value.partition("=")[0] not in _HIDDEN_BOARD]
    return Hardware(
        emulator=emulator,
        machine=board.removeprefix("type="),
        cpu_model=_value(words, "-cpu"),
        accelerator=_value(words, "-accel").partition(",")[0],
        cpus=cpus,
        memory_mib=memory_mib,
        devices=(*told, *_devices(words)),
    )


def _value(words: Sequence[str], option: str) -> str:
    for word, value in pairwise(words):
        if word == option:
            return value
    raise ValueError(f"no {option} is among the words")


def _devices(words: Sequence[str]) -> Iterator[str]:
    for word, value in pairwise(words):
        if word in _SEEN:
            yield f"{word} {_plain(value)}"


def _plain(value: str) -> str:
    """JSON in one order, so that the same device is the same text."""
    if not value.startswith("{"):
        return value
    return json.dumps(json.loads(value), sort_keys=True, separators=(",", ":"))
