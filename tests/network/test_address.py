"""Virtual addresses: how they are written, refused, and completed from the host's subnets."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlive.errors import OutliveError
from outlive.network.address import (
    HostAddress,
    VirtualAddress,
    WrittenAddress,
    complete,
    is_interface_name,
    parse,
)
from outlive.network.errors import AddressInvalid, InterfaceAmbiguous, InterfaceMissing

HOST = (
    HostAddress(IPv4Address("127.0.0.1"), 8, "lo"),
    HostAddress(IPv4Address("10.0.0.1"), 24, "eth0"),
    HostAddress(IPv4Address("10.0.0.77"), 32, "eth1"),
    HostAddress(IPv4Address("192.168.0.1"), 16, "eth1"),
    HostAddress(IPv4Address("192.168.5.1"), 24, "eth2"),
    HostAddress(IPv6Address("fd00::1"), 64, "eth0"),
)


def completed(text: str, interface: str | None = None) -> str:
    return str(complete(parse(text, interface), HOST))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("10.0.0.9/24%eth0", WrittenAddress(IPv4Address("10.0.0.9"), 24, "eth0")),
        ("10.0.0.9/24", WrittenAddress(IPv4Address("10.0.0.9"), 24, None)),
        ("10.0.0.9%bond0.17", WrittenAddress(IPv4Address("10.0.0.9"), None, "bond0.17")),
        ("fd00::9/64%eth0", WrittenAddress(IPv6Address("fd00::9"), 64, "eth0")),
        ("10.0.0.0/31", WrittenAddress(IPv4Address("10.0.0.0"), 31, None)),
        ("10.0.0.9/32", WrittenAddress(IPv4Address("10.0.0.9"), 32, None)),
    ],
)
def test_written_address_is_read(text: str, written: WrittenAddress) -> None:
    assert parse(text) == written


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "does not start with an IP address"),
        ("10.0.0/24", "does not start with an IP address"),
        ("10.0.0.09/24", "does not start with an IP address"),
        ("web.example/24", "does not start with an IP address"),
        (" 10.0.0.9/24", "does not start with an IP address"),
        ("10.0.0.9/", "no valid prefix length"),
        ("10.0.0.9/33", "it must be 1 to 32"),
        ("fd00::9/129", "it must be 1 to 128"),
        ("10.0.0.9/0", "no valid prefix length"),
        ("10.0.0.9/+24", "no valid prefix length"),
        ("10.0.0.9/²", "no valid prefix length"),
        ("10.0.0.9/255.255.255.0", "no valid prefix length"),
        ("10.0.0.9/24%", "cannot be the name of an interface"),
        ("10.0.0.9%eth0/24", "cannot be the name of an interface"),
        ("10.0.0.9/24%../../etc", "cannot be the name of an interface"),
        ("10.0.0.9/24%..", "cannot be the name of an interface"),
        ("10.0.0.9/24%eth 0", "cannot be the name of an interface"),
        ("10.0.0.9/24%eth0\n", "cannot be the name of an interface"),
        ("10.0.0.9/24%a-name-too-long-", "cannot be the name of an interface"),
        ("10.0.0.9/24%" + "x" * 500, "is too long"),
        ("0.0.0.0/24", "the unspecified address"),
        ("::/64", "the unspecified address"),
        ("224.0.0.5/24", "a multicast address"),
        ("ff02::1/64", "a multicast address"),
        ("127.0.0.9/8", "a loopback address"),
        ("255.255.255.255", "the broadcast address"),
        ("10.0.0.0/24", "the address of the subnet 10.0.0.0/24 itself"),
        ("10.0.0.255/24", "the broadcast address of 10.0.0.0/24"),
        ("fd00::/64", "the address of the subnet fd00::/64 itself"),
        ("::ffff:10.0.0.9/96", "an IPv4 address in IPv6 notation"),
    ],
)
def test_what_is_no_virtual_ip_is_refused_with_the_reason(text: str, told: str) -> None:
    with pytest.raises(AddressInvalid) as refused:
        parse(text)
    assert told in str(refused.value)
    assert refused.value.exit_code == 2


def test_two_different_interfaces_for_one_address_are_refused() -> None:
    assert parse("10.0.0.9/24%eth0", "eth0").interface == "eth0"
    with pytest.raises(AddressInvalid, match="names another interface"):
        parse("10.0.0.9/24%eth0", "eth1")


@given(st.text(max_size=200), st.none() | st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str, interface: str | None) -> None:
    try:
        written = parse(text, interface)
        address = complete(written, HOST)
    except OutliveError as refused:
        assert refused.sentence  # noqa: PT017
    else:
        assert complete(parse(str(address)), ()) == address


@given(
    st.ip_addresses(),
    st.integers(min_value=1, max_value=128),
    st.text(min_size=1, max_size=15).filter(is_interface_name),
)
def test_text_form_reads_back_as_the_same_address(
    ip: IPv4Address | IPv6Address, prefix_length: int, interface: str
) -> None:
    address = VirtualAddress(ip, min(prefix_length, ip.max_prefixlen), interface)
    try:
        assert complete(parse(str(address)), ()) == address
    except AddressInvalid as refused:
        assert "cannot be a virtual IP" in refused.sentence  # noqa: PT017


def test_interface_and_prefix_are_found_by_the_subnet_of_a_host_address() -> None:
    assert completed("10.0.0.9") == "10.0.0.9/24%eth0"
    assert completed("10.0.0.9/24") == "10.0.0.9/24%eth0"
    assert completed("10.0.0.9", "eth0") == "10.0.0.9/24%eth0"
    assert completed("fd00::9") == "fd00::9/64%eth0"


def test_narrowest_subnet_wins() -> None:
    assert completed("192.168.5.9") == "192.168.5.9/24%eth2"
    assert completed("192.168.6.9") == "192.168.6.9/16%eth1"
    assert completed("192.168.5.9/16") == "192.168.5.9/16%eth1"


def test_complete_address_needs_no_subnet() -> None:
    assert completed("172.16.0.9/12%eth0") == "172.16.0.9/12%eth0"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("172.16.0.9", "No interface of this host has an address in the subnet of 172.16.0.9."),
        ("10.0.0.9/25", "No interface of this host has an address in the subnet of 10.0.0.9/25."),
        ("10.0.0.9%eth2", "Interface eth2 has no address in the subnet of 10.0.0.9."),
    ],
)
def test_address_of_no_subnet_is_refused(text: str, told: str) -> None:
    with pytest.raises(InterfaceMissing) as refused:
        completed(text)
    assert refused.value.sentence == told


def test_address_of_two_interfaces_in_one_subnet_is_refused_with_both_names() -> None:
    present = (*HOST, HostAddress(IPv4Address("10.0.0.2"), 24, "wlan0"))
    with pytest.raises(InterfaceAmbiguous) as refused:
        complete(parse("10.0.0.9"), present)
    assert refused.value.sentence == "10.0.0.9 could belong to eth0 or wlan0."
    assert complete(parse("10.0.0.9%wlan0"), present) == VirtualAddress(ip_address("10.0.0.9"), 24, "wlan0")
