"""The texts that both files use: names, paths, addresses, labels; what makes each valid and how else to write it.

Virtual IPs are judged here as `outlive.network.address` judges them where they are used; a test keeps the two alike.
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from outlive.cluster.host import NAME
from outlive.cluster.versions import LONGEST_RANGE, RANGE_FIX, parse_range
from outlive.errors import UsageInvalid

from .shapes import Text, Wrong

_NAME_FIX = "Use 1 to 63 of a-z, 0-9 and '-', with neither end a '-'."
_VIRTUAL_IP_FIX = (
    "Write it as ADDRESS/PREFIX, such as 10.77.0.100/24 or fd00::100/64; an interface has a key of its own."
)
_ADDRESS_FIX = "Write an IPv4 or IPv6 address, such as 10.77.0.1."
LONGEST_PATH = 4000


def name_of(what: str) -> Text:
    """The name of a host, site, workload, module or datastore, which becomes part of paths and keys."""
    return Text(f"a name for {what} (a-z, 0-9 and '-')", NAME.pattern, _NAME_FIX, least=1, most=63)


def absolute_path(what: str, *, most: int = LONGEST_PATH) -> Text:
    """The path of a file or folder, from the root."""
    return Text(f"the absolute path of {what}", r"/[^\x00]*", "Write it from the root on: /….", least=1, most=most)


def _package(text: str) -> str:
    name, at, versions = text.partition("@")
    if not NAME.fullmatch(name):
        raise Wrong("does not begin with the name of a package", _NAME_FIX)
    if at:
        try:
            parse_range(versions)
        except UsageInvalid:
            raise Wrong(f"asks for {versions!r}, which is no range of versions", RANGE_FIX) from None
    return text


PACKAGE = Text(
    "a package as NAME, or NAME@VERSIONS",
    r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(@[^\x00-\x1f]*)?",
    "Write its name, and the versions that will do after an @, such as web@^1.2.",
    least=1,
    most=64 + LONGEST_RANGE,
    made=_package,
)
LABEL_NAME = Text(
    "the name of a label",
    "[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?",
    "Use 1 to 63 letters, digits and . _ / -, with a letter or digit at both ends.",
    least=1,
    most=63,
)
LABEL_VALUE = Text("text of at most 63 characters", r"[^\x00-\x1f\x7f]*", "Remove the control characters.", most=63)

INTERFACE = Text(
    "the name of a network interface",
    r"(?!\.{1,2}$)[!-$&-.0-9;-~]{1,15}",
    "Write it as `ip link` shows it, such as eth0.",
    least=1,
    most=15,
)


def _virtual_ip(text: str) -> str:
    address, slash, prefix = text.partition("/")
    try:
        ip = ip_address(address)
    except ValueError:
        raise Wrong("does not begin with an IP address", _VIRTUAL_IP_FIX) from None
    if not slash:
        raise Wrong("has no prefix length", f"Write how long its subnet's prefix is, such as {ip}/{_usual(ip)}.")
    if not re.fullmatch("[0-9]{1,3}", prefix) or not 1 <= int(prefix) <= ip.max_prefixlen:
        raise Wrong(f"must have a prefix length from 1 to {ip.max_prefixlen}", _VIRTUAL_IP_FIX)
    length = int(prefix)
    why = _not_for_one_host(ip)
    if not why and length < ip.max_prefixlen - 1:
        network = ip_network((ip, length), strict=False)
        if ip == network.network_address:
            why = f"is the address of the subnet {network} itself"
        elif ip.version == 4 and ip == network.broadcast_address:
            why = f"is the broadcast address of {network}"
    if why:
        raise Wrong(why, "Choose an address in the subnet that no machine has.")
    return f"{ip}/{length}"


def _address_of_host(text: str) -> str:
    try:
        ip = ip_address(text)
    except ValueError:
        if "/" in text:
            raise Wrong("is more than an IP address", "Write it without a prefix length.") from None
        raise Wrong("is no IP address", _ADDRESS_FIX) from None
    why = _not_for_one_host(ip)
    if why and not ip.is_loopback:
        raise Wrong(why, "Write the address by which the other hosts reach this one.")
    return str(ip)


def _address_to_ask(text: str) -> str:
    if text == "{address}":
        return text
    try:
        return str(ip_address(text))
    except ValueError:
        raise Wrong(
            "is no IP address", 'Write "{address}" for the virtual IP, or an address such as 127.0.0.1.'
        ) from None


def _not_for_one_host(ip: IPv4Address | IPv6Address) -> str:
    """Why the address cannot be one host's on a network, as a predicate; empty when it can."""
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        return "is an IPv4 address in IPv6 notation"
    if ip.is_unspecified:
        return "is the unspecified address"
    if ip.is_multicast:
        return "is a multicast address"
    if ip.is_loopback:
        return "is a loopback address, which every host has for itself"
    return "is the broadcast address" if ip == IPv4Address("255.255.255.255") else ""


def _usual(ip: IPv4Address | IPv6Address) -> int:
    return 24 if ip.version == 4 else 64


VIRTUAL_IP = Text(
    "an IP address with prefix length", r"[0-9A-Fa-f.:]+(/[0-9]+)?", _VIRTUAL_IP_FIX, least=2, most=64, made=_virtual_ip
)
ADDRESS_OF_HOST = Text("an IP address", r"[0-9A-Fa-f.:/]+", _ADDRESS_FIX, least=2, most=64, made=_address_of_host)
ADDRESS_TO_ASK = Text(
    'an IP address or "{address}"',
    r"\{address\}|[0-9A-Fa-f.:]+",
    'Write "{address}" for the virtual IP, or an address such as 127.0.0.1.',
    least=2,
    most=64,
    made=_address_to_ask,
)
