"""What a virtual machine is connected to on one host: its seat.

A `Machine` says what the guest sees, the same everywhere; a seat says what stands behind it here: files, sockets,
taps, and how its memory is kept. Whoever makes a seat (the agent) sees to it that taps exist and that folders can be
made; what is in them is made by `outlive.runtime.vm` when the machine starts. The invariant: nothing in a seat can be
seen by the guest, so that two seats of one machine may differ in everything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

LONGEST_SOCKET_PATH = 107
"""In bytes; what Linux takes as the path of a Unix socket."""

AGENTS_QMP = "qmp.sock"
CONSOLE = "console.sock"
CONSOLE_LOG = "console.log"
GUEST_AGENT = "guest-agent.sock"


@dataclass(frozen=True, slots=True)
class Tap:
    """A network card whose frames go straight to a tap, which exists, is up, and is in its bridge.

    name: of the tap, in the network namespace that the emulator is started in; owned by the user that the emulator runs
          as (`HostFacts.account`) or by nobody, since only its owner and root may open it.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Held:
    """A network card whose frames pass the communication manager, as datagrams over two Unix sockets.

    local:  bound by QEMU (what the manager's configuration calls `remote_socket`).
    remote: bound by the communication manager; best in the run folder too, and open to QEMU's user.
    tap:    the tap that the manager passes frames on to, whose counters say whether the guest sends; "" for none.
    """

    local: Path
    remote: Path
    tap: str = ""


@dataclass(frozen=True, slots=True)
class Watched:
    """Tracking of written pages by a preloaded library.

    library: libpagewatch.so.  output: the file in which it says where the memory lies in QEMU.
    """

    library: Path
    output: Path


@dataclass(frozen=True, slots=True)
class PrivateMemory:
    """Memory that is QEMU's alone."""


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """Memory in a file that others may map.

    file:    in a tmpfs folder; made anew when the machine starts, as large as the machine's memory, and removed when
             it has stopped.
    watched: None: shared but not tracked, as a standby's is until it is a primary's.
    """

    file: Path
    watched: Watched | None = None


@dataclass(frozen=True, slots=True)
class Seat:
    """All that one machine is connected to on this host.

    folder:   a local folder for this machine alone; firmware settings and the cloud-init seed are kept there.
    run:      a local folder for this machine alone, with a short path, for sockets and the console's log; the sockets
              are removed when the machine has stopped, the log stays for whoever asks why.
    disks:    the file of each disk, by the disk's name.
    nics:     the end of each network card, by the card's name.
    incoming: wait for state to come (`-incoming defer`) and start nothing by itself.
    comm_qmp: where the communication manager's own monitor socket is to be; None without one.
    version:  the exact board version; None: that of the machine, else this host's newest.
    nvram:    where UEFI keeps its variables; None: in `folder`.
    may_make_disks: whether a disk that is not there is made, as at a machine's first start; otherwise it is missing,
              and nothing is started.
    """

    folder: Path
    run: Path
    disks: Mapping[str, Path] = field(default_factory=dict)
    nics: Mapping[str, Tap | Held] = field(default_factory=dict)
    memory: PrivateMemory | SharedMemory = PrivateMemory()
    incoming: bool = False
    comm_qmp: Path | None = None
    version: str | None = None
    nvram: Path | None = None
    may_make_disks: bool = False

    @property
    def in_epochs(self) -> bool:
        """Whether a communication manager stops the guest and lets it go on all the time, as under hot protection."""
        return self.comm_qmp is not None and any(isinstance(end, Held) for end in self.nics.values())

    @property
    def agents_qmp(self) -> Path:
        """The monitor socket that the agent uses."""
        return self.run / AGENTS_QMP

    @property
    def console(self) -> Path:
        """The socket of the serial console; one client at a time."""
        return self.run / CONSOLE

    @property
    def console_log(self) -> Path:
        """What the serial console wrote; trimmed by whoever watches the machine."""
        return self.run / CONSOLE_LOG

    @property
    def guest_agent(self) -> Path:
        """The socket of the guest's agent, where the machine has one."""
        return self.run / GUEST_AGENT


def node(disk: str) -> str:
    """The block node of a disk, which the guest's device is on: what a mirror, a snapshot or an export names."""
    return f"disk-{disk}"


def file_node(disk: str) -> str:
    """The block node below that of a disk: the file itself."""
    return f"file-{disk}"


def disk_device(disk: str) -> str:
    """The id of the guest's device of a disk."""
    return f"device-{disk}"
