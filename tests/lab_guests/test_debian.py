"""The real guest boots; PostgreSQL keeps what it committed to pgbench's clients, Redis and the guest agent answer."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlive.lab.guests.clients import socket_in
from outlive.lab.guests.debian import REDIS_PORT, DebianGuest, debian
from outlive.lab.guests.postgres import Bench, Postgres

from .booting import ADDRESS, BOOT_S, PREFIX, Booted, booted

pytestmark = [pytest.mark.lab, pytest.mark.soak, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def made() -> DebianGuest:
    return debian(say=print)


@pytest.fixture
def guest(made: DebianGuest, tmp_path: Path) -> Iterator[Booted]:
    disk = tmp_path / "disk.raw"
    made.copy_image(disk)
    agent = f"socket,id=agent,path={tmp_path}/agent,server=on,wait=off"
    port = ("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0")
    more = ("-m", "512", "-device", "virtio-serial-pci", "-chardev", agent, *port)
    with booted(tmp_path, made.kernel, made.initrd, made.append_for(f"{ADDRESS}/{PREFIX}"), disk, *more) as on:
        yield on


def redis_says(namespace: str, command: bytes) -> bytes:
    deadline = time.monotonic() + 60
    while True:
        with socket_in(namespace) as connection:
            try:
                connection.settimeout(5)
                connection.connect((ADDRESS, REDIS_PORT))
                connection.sendall(command)
                return connection.recv(4096)
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.5)


def test_it_keeps_every_commit_and_all_its_services_answer(made: DebianGuest, guest: Booted, tmp_path: Path) -> None:
    database = Postgres(made, ADDRESS, namespace=guest.namespace)
    database.until_ready(BOOT_S)
    assert database.query("SHOW data_checksums") == ["on"]
    assert database.query("SHOW synchronous_commit") == ["on"]
    with Bench(database, tmp_path / "bench", clients=3, seconds=5) as bench:
        outcome = bench.judge()
        assert outcome.clean, outcome
        assert outcome.acknowledged > 0
        assert outcome.broken_connections == 0
        database.query("DELETE FROM ledger WHERE number = 1 AND client = 1")
        assert bench.judge(whole=False).lost == 1
    database.query("UPDATE pgbench_tellers SET tbalance = tbalance + 1 WHERE tid = 1")
    assert database.complaints() == ["the sums of accounts, branches, tellers and history differ"]
    assert redis_says(guest.namespace, b"CONFIG GET appendfsync\r\n").endswith(b"always\r\n")
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(60)
        agent.connect(str(tmp_path / "agent"))
        agent.sendall(b'{"execute": "guest-ping"}\n')
        assert agent.recv(4096) == b'{"return": {}}\n'
    guest.press_power()
    assert guest.emulator.wait(90) == 0
