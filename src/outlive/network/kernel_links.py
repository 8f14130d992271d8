"""The links of this host in the kernel: bridges, VXLAN ends and taps. What VXLAN ends forward is in `fdb`.

The one file that changes links, through pyroute2, and makes taps. It blocks, keeps one netlink socket and belongs to
one worker thread. It decides nothing: which links are Outlive's is the caller's to know.
"""

import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute  # type: ignore[import-untyped]
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]

from outlive.errors import OutliveError
from outlive.network.errors import kernel_refused, not_permitted

_TUN = "/dev/net/tun"
_IFREQ = struct.Struct("16sH22x")
_SET_INTERFACE, _SET_PERSISTENT, _SET_OWNER, _SET_GROUP = 0x400454CA, 0x400454CB, 0x400454CC, 0x400454CE
_TAP, _NO_PACKET_INFO, _OFFLOAD_HEADER = 0x0002, 0x1000, 0x4000
_UP, _RUNNING = 0x1, 0x40
_MASTER_TABLE = 0x04
_STATIC = 0x40
_NO_ADDRESSES = {"attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", 1]]}]]}
_GONE = frozenset((errno.ENODEV, errno.ENXIO, errno.ENOENT))


@dataclass(frozen=True, slots=True)
class Vxlan:
    """What makes a VXLAN end: its network's number, this host's address, the UDP port."""

    vni: int
    local: str
    port: int
    learning: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    """A link as it is now. kind: "bridge", "vxlan", "tun" …, "" for hardware. master: index of its bridge, or 0."""

    index: int
    name: str
    kind: str
    up: bool
    running: bool
    mtu: int
    alias: str
    master: int
    vxlan: Vxlan | None = None


class KernelLinks:
    """The kernel's links in the network namespace of the thread that first uses it."""

    def __init__(self) -> None:
        self._netlink: Any = None

    def close(self) -> None:
        """Let go of the netlink socket; another call would open it again."""
        if self._netlink is not None:
            netlink, self._netlink = self._netlink, None
            netlink.close()

    def devices(self) -> dict[str, Device]:
        """Every link, by name."""
        try:
            return {device.name: device for device in map(_read, self._open().get_links())}
        except (NetlinkError, OSError) as error:
            raise self._explain("list this host's links", error) from error

    def device(self, name: str) -> Device | None:
        """The link of that name."""
        try:
            found = self._open().link("get", ifname=name)
        except NetlinkError as error:
            if error.code in _GONE:
                return None
            raise self._explain(f"look up {name}", error) from error
        except OSError as error:
            raise self._explain(f"look up {name}", error) from error
        return _read(found[0]) if found else None

    def make_bridge(self, name: str, mac: str) -> int:
        """A bridge that forwards at once, runs no protocols and has no addresses; its index."""
        self._link("add", name, kind="bridge", address=mac, br_forward_delay=0, br_stp_state=0, br_mcast_snooping=0)
        return self._index(name)

    def make_vxlan(self, name: str, end: Vxlan, mtu: int) -> int:
        """A VXLAN end; its index."""
        family = "vxlan_local6" if ":" in end.local else "vxlan_local"
        fields = {"vxlan_id": end.vni, "vxlan_port": end.port, "vxlan_learning": end.learning, family: end.local}
        self._link("add", name, kind="vxlan", mtu=mtu, **fields)
        return self._index(name)

    def make_tap(self, name: str, alias: str, owner: int | None = None, group: int | None = None) -> int:
        """A tap that stays when nobody has it open, with its alias from the first moment that it would; its index."""
        try:
            descriptor = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise self._explain(f"make tap {name}: {_TUN}", error) from error
        try:
            fcntl.ioctl(
                descriptor, _SET_INTERFACE, _IFREQ.pack(name.encode(), _TAP | _NO_PACKET_INFO | _OFFLOAD_HEADER)
            )
            if owner is not None:
                fcntl.ioctl(descriptor, _SET_OWNER, owner)
            if group is not None:
                fcntl.ioctl(descriptor, _SET_GROUP, group)
            index = self._index(name)
            self.change(index, ifalias=alias)
            fcntl.ioctl(descriptor, _SET_PERSISTENT, 1)
        except OSError as error:
            raise self._explain(f"make tap {name}", error) from error
        finally:
            os.close(descriptor)
        return index

    def change(self, index: int, **fields: object) -> None:
        """Change a link: ifalias, master, mtu, address, state ("up" or "down")."""
        self._link("set", index, **fields)

    def silence(self, index: int) -> None:
        """Give the link no address of its own, so that this host says nothing on it."""
        try:
            self._open().link("set", index=index, IFLA_AF_SPEC=_NO_ADDRESSES)
        except NetlinkError as error:
            if error.code not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):  # without IPv6 there is nothing to silence
                raise self._explain("silence a link", error) from error
        except OSError as error:
            raise self._explain("silence a link", error) from error

    def port(self, index: int, *, learning: bool, flood: bool, everybody: bool = True, apart: bool = False) -> None:
        """How a bridge treats one of its ports.

        flood:     unknown receivers are looked for here.  everybody: broadcast and multicast go here.
        apart:     nothing is forwarded from it to another port that is apart.
        """
        fields = {
            "learning": learning,
            "unicast_flood": flood,
            "mcast_flood": everybody,
            "bcast_flood": everybody,
            "isolated": apart,
        }
        try:
            self._open().brport("set", index=index, **{name: int(value) for name, value in fields.items()})
        except (NetlinkError, OSError) as error:
            raise self._explain("set up a bridge's port", error) from error

    def delete(self, name: str) -> bool:
        """Remove a link; False if it was not there."""
        try:
            self._open().link("del", ifname=name)
        except NetlinkError as error:
            if error.code in _GONE:
                return False
            raise self._explain(f"remove {name}", error) from error
        except OSError as error:
            raise self._explain(f"remove {name}", error) from error
        return True

    def pin(self, index: int, mac: str) -> None:
        """Have the bridge know that `mac` is at this port of it, whatever traffic says."""
        fields = {"ifindex": index, "lladdr": mac, "flags": _MASTER_TABLE, "state": _STATIC}
        self._neighbour("replace", frozenset(), f"pin {mac}", fields)

    def unpin(self, index: int, mac: str) -> None:
        """Undo `pin`; what is not there is no error."""
        fields = {"ifindex": index, "lladdr": mac, "flags": _MASTER_TABLE, "state": _STATIC}
        self._neighbour("del", _GONE, f"unpin {mac}", fields)

    def _neighbour(self, verb: str, expected: frozenset[int], doing: str, fields: dict[str, object]) -> None:
        try:
            self._open().fdb(verb, **fields)
        except NetlinkError as error:
            if error.code not in expected:
                raise self._explain(doing, error) from error
        except OSError as error:
            raise self._explain(doing, error) from error

    def _link(self, verb: str, which: str | int, **fields: object) -> None:
        named = {"ifname": which} if isinstance(which, str) else {"index": which}
        try:
            self._open().link(verb, **named, **fields)
        except (NetlinkError, OSError) as error:
            raise self._explain(f"{'make' if verb == 'add' else 'change'} link {which}", error) from error

    def _index(self, name: str) -> int:
        device = self.device(name)
        if device is None:
            raise kernel_refused(f"keep {name}, which was just made", errno.ENODEV)
        return device.index

    def _explain(self, doing: str, error: Exception) -> OutliveError:
        if not isinstance(error, NetlinkError):
            self.close()  # whatever state the socket is in, the next call gets a new one
        number = int(getattr(error, "code", None) or getattr(error, "errno", None) or 0)
        if number in (errno.EPERM, errno.EACCES):
            return not_permitted(doing, "CAP_NET_ADMIN")
        return kernel_refused(doing, number)

    def _open(self) -> Any:
        if self._netlink is None:
            self._netlink = IPRoute(groups=0)
        return self._netlink


def _read(message: Any) -> Device:
    kind = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or ""
    return Device(
        message["index"],
        message.get_attr("IFLA_IFNAME") or "",
        kind,
        bool(message["flags"] & _UP),
        bool(message["flags"] & _UP and message["flags"] & _RUNNING),
        message.get_attr("IFLA_MTU") or 0,
        message.get_attr("IFLA_IFALIAS") or "",
        message.get_attr("IFLA_MASTER") or 0,
        _read_vxlan(message) if kind == "vxlan" else None,
    )


def _read_vxlan(message: Any) -> Vxlan | None:
    data = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
    if data is None:
        return None
    return Vxlan(
        data.get_attr("IFLA_VXLAN_ID") or 0,
        data.get_attr("IFLA_VXLAN_LOCAL") or data.get_attr("IFLA_VXLAN_LOCAL6") or "",
        data.get_attr("IFLA_VXLAN_PORT") or 0,
        bool(data.get_attr("IFLA_VXLAN_LEARNING")),
    )
