"""Where the cluster's store is, read from one line of text: `sqlite:///PATH` or `etcd://HOST:PORT,HOST:PORT/PREFIX`.

`etcds://` is the same by TLS. Nothing is looked up or opened here; a user's password is never part of an address.
"""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address, ip_address
from pathlib import Path

ETCD_PORT = 2379
ETCD_PREFIX = "/outlive"
MOST_ENDPOINTS = 16
LONGEST_PREFIX = 200
"""In characters. Keys carry it, and etcd takes no more than 1.5 MiB in one request."""

SHAPE = r"sqlite:///[^\x00]*[^\x00/]|etcds?://[^\x00-\x20/]+(/[^\x00-\x20]*)?"

_HOST = re.compile(r"(?P<name>[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)|\[(?P<six>[0-9A-Fa-f:.]{2,45})\]")
_PREFIX = re.compile(r"(/[A-Za-z0-9._-]+)+")


class StoreAddressInvalid(ValueError):
    """What is wrong with a store's address, as the rest of a sentence that begins with it."""


@dataclass(frozen=True, slots=True)
class SqliteAddress:
    """The file of a SQLite store."""

    path: Path

    def __str__(self) -> str:
        return f"sqlite://{self.path}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one member of an etcd cluster takes clients."""

    host: str
    port: int

    @property
    def here(self) -> bool:
        """Whether what is sent there does not leave this machine."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class EtcdAddress:
    """An etcd cluster, and the prefix of our keys there: it begins with a slash and ends without one."""

    endpoints: tuple[Endpoint, ...]
    prefix: str = ETCD_PREFIX
    tls: bool = False

    @property
    def private(self) -> bool:
        """Whether nobody on the way reads what is said."""
        return self.tls or all(endpoint.here for endpoint in self.endpoints)

    def __str__(self) -> str:
        return f"etcd{'s' if self.tls else ''}://{','.join(map(str, self.endpoints))}{self.prefix}"


StoreAddress = SqliteAddress | EtcdAddress


def parse_store(text: str) -> StoreAddress:
    """Read a store's address. Raises StoreAddressInvalid."""
    scheme, separator, rest = text.partition("://")
    if separator and scheme == "sqlite":
        if not rest.startswith("/") or not rest.strip("/") or "\0" in rest:
            raise StoreAddressInvalid("has no absolute path of a file")
        return SqliteAddress(Path("/" + rest.lstrip("/")))
    if separator and scheme in ("etcd", "etcds"):
        return _etcd(rest, tls=scheme == "etcds")
    raise StoreAddressInvalid("begins with none of sqlite://, etcd:// and etcds://")


def _etcd(rest: str, *, tls: bool) -> EtcdAddress:
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        raise StoreAddressInvalid("has a user in it: name user and password file in [store_login]")
    endpoints = tuple(_endpoint(one) for one in authority.split(","))
    if len(endpoints) > MOST_ENDPOINTS:
        raise StoreAddressInvalid(f"has {len(endpoints)} endpoints; at most {MOST_ENDPOINTS} are taken")
    if len(set(endpoints)) < len(endpoints):
        raise StoreAddressInvalid("names an endpoint twice")
    prefix = (slash + path).rstrip("/") or ETCD_PREFIX
    if not _PREFIX.fullmatch(prefix) or len(prefix) > LONGEST_PREFIX:
        raise StoreAddressInvalid(
            f"has the prefix {prefix[:40]!r}, which is not of letters, digits, '.', '_', '-', '/'"
        )
    return EtcdAddress(endpoints, prefix, tls)


def _endpoint(text: str) -> Endpoint:
    found = _HOST.match(text)
    if found is None:
        raise StoreAddressInvalid(f"has {text!r} where a host's name or address should be")
    host, rest = found["name"] or found["six"], text[found.end() :]
    if found["six"]:
        try:
            IPv6Address(host)
        except AddressValueError:
            raise StoreAddressInvalid(f"has {host!r}, which is no IPv6 address") from None
    if not rest:
        return Endpoint(host, ETCD_PORT)
    if not re.fullmatch(r":[0-9]{1,5}", rest, re.ASCII) or not 1 <= int(rest[1:]) <= 65_535:
        raise StoreAddressInvalid(f"has {rest!r} after {host!r} where a colon and a port should be")
    return Endpoint(host, int(rest[1:]))
