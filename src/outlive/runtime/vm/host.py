"""What of this host a virtual machine depends on: the emulator, its acceleration, its user and its firmware.

Found once when the agent begins, by asking QEMU itself. None of it may be seen by the guest, apart from KVM, under
which machines run only with machines under KVM as peers.
"""

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import structlog

from outlive.cluster.machine import MachineType
from outlive.cluster.machine_rules import VERSION
from outlive.errors import Failed
from outlive.runtime.accounts import UserUnknown, account
from outlive.runtime.base import BASE_ENVIRONMENT
from outlive.runtime.runner import Account

USER = "outlive-vm"
CPU_MODEL = "Nehalem-v1"
"""The processor of machines that ask for none: x86-64-v2, which both KVM on any host of the last ten years and QEMU's
own translation can give, in the version that never changes."""

PROGRAM = "qemu-system-x86_64"
ANSWERS_WITHIN_S = 30.0
MOST_ANSWER_BYTES = 1 << 20
_KVM = Path("/dev/kvm")
_FIRMWARE = (
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
)

log = structlog.get_logger()


class Acceleration(StrEnum):
    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """qemu: the emulator's program.  qemu_version: as in 7.2.22.  newest: the newest board version of each type.

    account: the user that emulators run as; None: ours, root.
    firmware, firmware_variables: UEFI's code and the template of its variables; None where this host has none.
    """

    qemu: Path
    qemu_version: str
    newest: Mapping[MachineType, str] = field(default_factory=dict)
    acceleration: Acceleration = Acceleration.TCG
    account: Account | None = None
    firmware: Path | None = None
    firmware_variables: Path | None = None


async def find() -> HostFacts:
    """Look at this host. Raises Failed (id `vm.no-emulator`) where there is no usable QEMU."""
    program = await asyncio.to_thread(shutil.which, PROGRAM, path=BASE_ENVIRONMENT["PATH"])
    if program is None:
        raise _no_emulator(f"{PROGRAM} is not installed")
    _, version = await _answer(program, "--version")
    _, boards = await _answer(program, "-machine", "help")
    number = re.search(r"version (\d+(?:\.\d+)+)", version)
    found = newest_boards(boards.splitlines())
    if number is None or len(found) < len(MachineType):
        raise _no_emulator(f"{program} does not say which boards it knows")
    acceleration = await _acceleration(program)
    firmware, variables = await asyncio.to_thread(_firmware)
    return HostFacts(
        Path(program), number[1], found, acceleration, await _account(acceleration), firmware, variables
    )  # fmt: skip


def newest_boards(lines: Iterable[str]) -> dict[MachineType, str]:
    """Read the newest version of each board from what `-machine help` prints."""
    newest: dict[MachineType, tuple[tuple[int, ...], str]] = {}
    for line in lines:
        name = line.split(" ", 1)[0]
        for kind, beginning in VERSION.items():
            number = name.removeprefix(beginning)
            if name.startswith(beginning) and re.fullmatch(r"\d+\.\d+", number):
                version = tuple(int(part) for part in number.split("."))
                newest[kind] = max(newest.get(kind, ((), "")), (version, name))
    return {kind: name for kind, (_, name) in newest.items()}


async def _acceleration(program: str) -> Acceleration:
    """KVM only where it gives the very processor that our machines have by themselves: some nested ones do not."""
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return Acceleration.TCG
    words = (
        f"-accel kvm -cpu {CPU_MODEL},enforce -machine q35 -m 16 -S -nodefaults -no-user-config -display none".split()
    )
    commands = b'{"execute":"qmp_capabilities"}\n{"execute":"quit"}\n'
    try:
        code, said = await _answer(program, *words, "-qmp", "stdio", put_in=commands)
    except Failed as error:
        code, said = 1, str(error)
    if code == 0:
        return Acceleration.KVM
    log.warning("vm.kvm_not_usable", reason=said.strip().splitlines()[-1] if said.strip() else "")
    return Acceleration.TCG


async def _account(acceleration: Acceleration) -> Account | None:
    try:
        user = await account(USER)
    except UserUnknown as error:
        log.warning("vm.own_user_missing", reason=str(error), remedy=f"useradd --system {USER}")
        return None
    if acceleration is Acceleration.KVM:
        group = (await asyncio.to_thread(_KVM.stat)).st_gid
        return Account(user.user, user.group, tuple(dict.fromkeys((*user.groups, group))))
    return user


def _firmware() -> tuple[Path | None, Path | None]:
    for code, variables in _FIRMWARE:
        if Path(code).is_file() and Path(variables).is_file():
            return Path(code), Path(variables)
    return None, None


async def _answer(program: str, *words: str, put_in: bytes = b"") -> tuple[int, str]:
    """How the program ended, and all that it said. Raises Failed when it cannot be run or says nothing in time."""
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(BASE_ENVIRONMENT),
            limit=MOST_ANSWER_BYTES,
        )
    except OSError as error:
        raise _no_emulator(f"{program} cannot be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            said, _ = await process.communicate(put_in)
    except TimeoutError as error:
        raise _no_emulator(f"{program} did not answer within {ANSWERS_WITHIN_S:g} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return process.returncode or 0, said.decode(errors="replace")


def _no_emulator(cause: str) -> Failed:
    return Failed(
        "This host cannot run virtual machines.",
        cause=cause,
        remedy="install qemu-system-x86, version 7.2 or later",
        id="vm.no-emulator",
    )
