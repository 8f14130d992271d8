"""A store's address is read into what it says, and back; everything else is refused with what is wrong with it."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from outlive.config.store_address import Endpoint, EtcdAddress, SqliteAddress, StoreAddressInvalid, parse_store


def test_a_file_and_a_cluster_are_told_apart() -> None:
    assert parse_store("sqlite:///srv/store.db") == SqliteAddress(Path("/srv/store.db"))
    assert parse_store("etcd://h") == EtcdAddress((Endpoint("h", 2379),), "/outlive")
    assert parse_store("etcds://10.0.0.1,b.example:2380,[fd00::1]:1/a/b/") == EtcdAddress(
        (Endpoint("10.0.0.1", 2379), Endpoint("b.example", 2380), Endpoint("fd00::1", 1)), "/a/b", tls=True
    )


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "begins with none"),
        ("etcd:h", "begins with none"),
        ("sqlite://store.db", "no absolute path"),
        ("etcd://", "where a host's name"),
        ("etcd://a,,b", "where a host's name"),
        ("etcd://a:b", "a colon and a port"),
        ("etcd://a:70000", "a colon and a port"),
        ("etcd://a:٣", "a colon and a port"),
        ("etcd://[fd00::g]", "where a host's name"),
        ("etcd://[1:2]", "no IPv6 address"),
        ("etcd://u:p@a", "[store_login]"),
        ("etcd://a,a", "twice"),
        ("etcd://" + ",".join(f"h{n}" for n in range(17)), "at most 16"),
        ("etcd://a/x y", "the prefix"),
        ("etcd://a/" + "x" * 300, "the prefix"),
    ],
)
def test_each_mistake_is_named(text: str, wrong: str) -> None:
    with pytest.raises(StoreAddressInvalid) as refused:
        parse_store(text)
    assert wrong in str(refused.value)


@given(st.text() | st.builds("etcd://{}".format, st.text(alphabet="ab.,:/[]@019-_é\0", max_size=40)))
@example("etcd://[::1]:2379,[::1%eth0]/x")
def test_any_text_is_read_back_the_same_or_refused(text: str) -> None:
    with suppress(StoreAddressInvalid):
        address = parse_store(text)
        assert parse_store(str(address)) == address
