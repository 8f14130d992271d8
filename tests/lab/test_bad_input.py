"""Bad input to a real cluster: it is refused in the right place, told, and everything goes on."""

import asyncio
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from outlive.agent.facts import boot_id
from outlive.cluster import records as rec
from outlive.cluster.heartbeat import Flags, Heartbeat
from outlive.cluster.transaction import Delete, Put, Transaction
from outlive.lab import ready
from outlive.lab import service_demo as demo
from outlive.lab.lab import Lab
from outlive.lab.plan import PORT
from outlive.store.sqlite import SqliteStore
from outlive.wire import datagram
from outlive.wire.seal import Seal

from .scene import WORKLOAD, Scene
from .shared import SharedLab

SOON_S = 60.0


def send(scene: Scene, packets: list[bytes]) -> None:
    """Send datagrams to every agent, from where clients are."""
    program = (
        "import socket, sys\n"
        "out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for line in sys.stdin:\n"
        "    where, data = line.split()\n"
        f"    out.sendto(bytes.fromhex(data[1:]), (where, {PORT}))\n"
    )
    lines = "".join(f"{host.address} x{packet.hex()}\n" for packet in packets for host in scene.lab.plan.hosts)
    process = scene.lab.in_client(sys.executable, "-c", program, stdin=subprocess.PIPE, cwd="/")
    process.communicate(lines.encode(), timeout=SOON_S)
    assert process.returncode == 0


def seal_of(lab: Lab, cluster: str | None = None) -> Seal:
    key = bytes.fromhex((lab.plan.root / "cluster.key").read_text().strip())
    return Seal(cluster or lab.plan.cluster, key)


def forged(scene: Scene, **changes: object) -> Heartbeat:
    """A heartbeat in the primary's name that says its modules have stopped."""
    plain = Heartbeat(
        cluster=scene.lab.plan.cluster,
        host=scene.primary,
        boot_id=boot_id(),
        sequence=1,
        flags=Flags.ISOLATED,
        load=0.0,
        claim=0,
        table=bytes(8),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def in_store(scene: Scene, *writes: Put | Delete) -> None:
    """Write to the store by hand."""

    async def write() -> None:
        store = await SqliteStore.open(scene.lab.plan.store, timeout_s=SOON_S)
        try:
            for each in writes:
                await store.transact(Transaction((), (each,)), timeout_s=SOON_S)
        finally:
            await store.close()

    asyncio.run(write())


def refused(scene: Scene, log_line: str) -> set[str]:
    """The reasons for which every agent says in its log that it refused something."""
    found = []
    for host in scene.lab.plan.hosts:
        text = (scene.lab.plan.host_folder(host.name) / "console.log").read_text(errors="replace")
        *whole, _ = text.split("\n")  # the last may be on its way
        found.append({part.split()[0] for line in whole if log_line in line for part in line.split("reason=")[1:]})
    return set.intersection(*found)


def until_refused(scene: Scene, packets: list[bytes], holds: Callable[[set[str]], bool]) -> None:
    """Send until every agent has told what it refused: a busy one's socket overflows, and loses some."""
    deadline = time.monotonic() + SOON_S
    send(scene, packets)
    while not holds(found := refused(scene, "wire.datagram_refused")):
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
        send(scene, packets)


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def nothing_happened(scene: Scene) -> None:
    """The workload still runs where it ran, and clients are answered."""
    scene.counts_again()
    assert scene.runs_here()["generation"] == scene.first
    assert not {"verdict.dead", "verdict.isolated", "host.isolated"} & set(scene.kinds())


def test_garbled_foreign_newer_huge_and_replayed_datagrams_are_told_and_change_nothing(scene: Scene) -> None:
    seal, chance = seal_of(scene.lab), random.Random(7)
    of_version = bytearray(datagram.pack(forged(scene, sequence=1 << 62), seal))
    of_another = [bytes([*of_version[:at], 99, *of_version[at + 1 :]]) for at in range(8)]
    until_refused(scene, of_another, lambda reasons: any("version" in reason for reason in reasons))
    good = datagram.pack(forged(scene), seal)
    newer = datagram.pack(forged(scene, sequence=1 << 62), seal)
    foreign = datagram.pack(forged(scene, cluster="f" * 16, sequence=1 << 62), seal_of(scene.lab, "f" * 16))
    wrong_key = datagram.pack(forged(scene, sequence=1 << 62), Seal(scene.lab.plan.cluster, bytes(32)))
    flipped = [bytes([*newer[:at], newer[at] ^ 0x41, *newer[at + 1 :]]) for at in range(len(newer))]
    packets = [good, foreign, wrong_key, *flipped, newer[:10], b"", b"\0" * 60000, newer + b"more"]
    packets += [bytes(chance.randrange(256) for _ in range(chance.randrange(1, 1400))) for _ in range(300)]
    until_refused(scene, packets, lambda reasons: len(reasons) >= 4)
    time.sleep(2)
    nothing_happened(scene)


def test_slots_half_written_foreign_garbled_or_gone_change_nothing(scene: Scene) -> None:
    slots = scene.lab.plan.datastore / "heartbeats"
    victim, other = (slots / f"{name}.slot" for name in (scene.primary, scene.others()[0]))
    until(lambda: size(victim) == 4096 == size(other), "both hosts write their slots")
    content = victim.read_bytes()
    for garbled in (content[:100] + bytes(3996), b"x" * 4096, b"", other.read_bytes(), content * 3):
        victim.write_bytes(garbled)
        time.sleep(0.4)
    victim.unlink()
    time.sleep(4)
    nothing_happened(scene)
    until(lambda: size(victim) == 4096, "its slot is there again")


def test_store_keys_written_wrongly_by_hand_are_healed_or_named_and_nothing_stops(scene: Scene) -> None:
    others = (rec.REPORTS, rec.HOSTS, rec.CLAIMS, rec.VERDICTS)
    in_store(scene, Put(rec.PLACEMENTS + WORKLOAD, b"{nonsense"))
    time.sleep(1)
    in_store(scene, Delete(rec.PLACEMENTS + WORKLOAD))
    time.sleep(1)
    name = {rec.REPORTS: WORKLOAD}
    in_store(scene, *(Put(prefix + name.get(prefix, scene.primary), b"\xff\xfe") for prefix in others))
    in_store(scene, Put(rec.WORKLOADS + "odd", b'{"workload": 5}'), Put("nobody/knows", b"this"))
    time.sleep(2)
    scene.counts_again()
    ready.until(scene.lab, "it is named", lambda found: rec.WORKLOADS + "odd" in found["bad_records"], SOON_S)
    in_store(scene, Delete(rec.WORKLOADS + "odd"))
    ready.until(scene.lab, "nothing is garbled", lambda found: not found["bad_records"], SOON_S)
    scene.counts_again()
    scene.until_told("record.healed")
    in_store(scene, Delete("nobody/knows"))


def test_a_workload_file_full_of_mistakes_is_refused_whole(shared: SharedLab) -> None:
    lab = shared.lab()
    client = ready.any_client(lab)
    text = demo.REDIS.replace("[[virtual_ip]]", "[[virtual_pi]]").replace('"yes"', '"{nothing}"')
    try:
        client.put(f"/v1/workloads/{WORKLOAD}", text.encode())
    except Exception as error:
        told = str(error)
    assert "virtual_pi" in told
    assert ready.workload(ready.outlook(lab), WORKLOAD) is None


def test_another_host_of_the_same_name_is_refused_and_the_first_goes_on(scene: Scene) -> None:
    """Its claim stands in the store; a stranger's heartbeats in its name carry old sequences."""
    send(scene, [datagram.pack(forged(scene, sequence=number), seal_of(scene.lab)) for number in range(1, 200)])
    time.sleep(1)
    nothing_happened(scene)


def test_a_connection_that_says_nothing_does_not_hold_the_api_up(shared: SharedLab) -> None:
    lab = shared.lab()
    held = []
    for _ in range(50):
        silent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        silent.connect(str(lab.plan.api("a")))
        held.append(silent)
    assert ready.outlook(lab)["leader"] is not None
    for silent in held:
        silent.close()
