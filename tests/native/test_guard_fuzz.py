"""Whatever anyone sends it, the guard lives, keeps its promises, and answers; also as built with sanitizers."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ..sanitized import build, native
from .guarding import Client, GuardProcess, boot_ns, clear, populated, sleeper

GUARD_SOURCES = (
    "guard", "clients", "requests", "listening", "hardening", "watchdog", "armed", "fence", "dropper", "address",
    "journal", "process", "cgroup",
)  # fmt: skip

numbers = st.one_of(
    st.integers(-1, 20), st.integers(2**31 - 2, 2**31 + 2), st.integers(2**63 - 2, 2**64 + 2), st.just(10**40)
)
words = st.one_of(
    st.sampled_from(("DEADLINE", "PROTECT", "RELEASE", "FENCE", "STATUS", "QUIT", "WHOLE", "FIRED", "HELLO", "OK")),
    st.sampled_from(("kept", "web", "x" * 63, "x" * 64, "-", "Kept", "kept ", "", "\0", "/", "/proc", "%", "%s%n%n")),
    st.sampled_from(("10.0.0.1/32%v0", "10.0.0.1/33%v0", "::1/128%v0", "::1%v0/1", "1/1%" + "i" * 16, "fe80::1/64%")),
    numbers.map(str),
    st.text(max_size=20),
)


def sentence(parts: list[str]) -> bytes:
    return " ".join(parts).encode(errors="surrogatepass")


packets = st.one_of(
    st.binary(max_size=5000),
    st.lists(words, max_size=30).map(sentence),
    st.tuples(st.sampled_from(("PROTECT kept", "RELEASE kept", "FENCE kept", "PROTECT web")), words, words, words).map(
        lambda parts: sentence(list(parts))
    ),
)


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have the guard of this module's tests be one with sanitizers, unless all native programs are already."""
    if "OUTLIVE_NATIVE_DIR" in os.environ:
        yield
        return
    folder = tmp_path_factory.mktemp("sanitized")
    build(folder / "outlive-guard", native(GUARD_SOURCES))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTLIVE_NATIVE_DIR", str(folder))
        yield


@pytest.mark.usefixtures("sanitized")
def test_arbitrary_packets_neither_kill_the_guard_nor_release_what_it_protects(tmp_path: Path, root: Path) -> None:
    guard = GuardProcess(tmp_path)
    kept = root / "kept"
    try:
        with sleeper(kept) as module:
            client = guard.connect()
            client.extend(3000)
            assert client.ask(f"PROTECT kept 7 {kept}") == "OK"

            @settings(max_examples=300)
            @given(st.lists(packets, min_size=1, max_size=8))
            def hold(batch: list[bytes]) -> None:
                with contextlib.closing(Client(guard.path)) as stranger:
                    for packet in batch:
                        send_and_hear(stranger, packet)
                states = client.entries()
                assert states["kept 7"] == "protected"
                assert module.poll() is None

            hold()
            assert client.ask("FENCE kept 7") == "OK"
            assert client.hear().startswith("FIRED kept 7 ")
            assert not populated(kept)
            assert module.wait(60) == -signal.SIGKILL
            assert client.ask("RELEASE kept 7") == "OK"
        assert guard.alive()
        for workload in client.entries():
            client.ask(f"RELEASE {workload}")
        assert client.ask("QUIT") == "OK"
        assert guard.process.wait(60) == 0, guard.log.read_text()
    finally:
        guard.close()
        clear(kept)


def send_and_hear(client: Client, packet: bytes) -> None:
    """Send one packet and hear its whole answer, which any but an empty one has."""
    if packet in (b"", b"FENCE kept 7"):
        return
    client.socket.send(packet)
    answer = client.hear()
    assert answer.split(" ")[0] in ("OK", "ERR", "STATE"), answer
    while answer.startswith("STATE ") and client.hear() != "END":
        continue


def test_an_empty_packet_only_costs_its_sender_the_connection(guard: GuardProcess) -> None:
    client = guard.connect()
    client.socket.send(b"")
    assert client.socket.recv(10) == b""
    assert guard.connect().entries() == {}


def test_descriptors_sent_along_are_not_kept(guard: GuardProcess) -> None:
    client = guard.connect()
    folder = Path(f"/proc/{guard.process.pid}/fd")
    before = len(list(folder.iterdir()))
    for _ in range(10):
        with open("/dev/null", "rb") as null:
            socket.send_fds(client.socket, [f"DEADLINE {boot_ns()}".encode()], [null.fileno()] * 5)
        assert client.hear().startswith("OK ")
    assert len(list(folder.iterdir())) == before


def test_a_client_that_asks_without_reading_is_cut_off(guard: GuardProcess) -> None:
    client = guard.connect()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        talk_on_and_on(client)
    other = guard.connect()
    assert other.entries() == {}
    assert guard.alive()


def talk_on_and_on(client: Client) -> None:
    while True:
        client.socket.send(b"nonsense")
