"""Any machine survives being written; schema, reader and store agree on what one may be."""

import copy
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st

from outlive.cluster.host import Capacity
from outlive.cluster.machine import (
    CloudInit,
    Disk,
    DiskBus,
    DiskFormat,
    Firmware,
    GuestWatch,
    HotPolicy,
    KernelBoot,
    Machine,
    MachineType,
    Nic,
    NicModel,
    OnPanic,
    WarmPolicy,
)
from outlive.cluster.machine_rules import VERSION, machine_problem
from outlive.cluster.workload import Apart, Kind, Module, PlacementRules, Protection, Workload
from outlive.config.toml_writer import toml_text
from outlive.config.workload_file import parse_workload, to_document, workload_from_document, workload_schema

from .test_workload_properties import CHARACTERS, NAMES, NASTY, places, refusal

SCHEMA = jsonschema.Draft7Validator(workload_schema())
PATHS = st.from_regex(r"/[a-zA-Z0-9 ,._-]{0,8}(/[a-z]{1,3}){0,2}", fullmatch=True).filter(
    lambda path: ".." not in path.split("/")
)
MACS = st.integers(0, 2**24 - 1).map(
    lambda number: f"52:54:01:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
)
SECONDS = st.floats(1, 86_400)
TEXTS = st.text(CHARACTERS, max_size=20)


@st.composite
def disks(draw: st.DrawFn, hot: bool, local: bool) -> Disk:
    size, source = draw(st.none() | st.integers(1, 4096)), draw(st.none() | PATHS)
    return Disk(
        name="",
        format=draw(st.sampled_from(DiskFormat)),
        on="local" if hot or (local and draw(st.booleans())) else draw(NAMES.filter(lambda name: name != "local")),
        size_mib=size or (None if source else 1),
        source=source,
        bus=DiskBus.VIRTIO if hot else draw(st.sampled_from(DiskBus)),
        read_only=source is not None and draw(st.booleans()),
    )


@st.composite
def nics(draw: st.DrawFn, hot: bool) -> Nic:
    bridge = draw(st.none() | st.sampled_from(["br0", "br-lan", "virbr0"]))
    return Nic(
        name="",
        mac="",
        bridge=bridge,
        network=None if bridge else draw(NAMES),
        model=NicModel.VIRTIO if hot else draw(st.sampled_from(NicModel)),
    )


@st.composite
def machines(draw: st.DrawFn, hot: bool, local: bool) -> Machine:
    board = draw(st.sampled_from(MachineType))
    bare_disks = draw(st.lists(disks(hot, local), max_size=3))
    bare_nics = draw(st.lists(nics(hot), max_size=3))
    disk_names = draw(st.lists(NAMES, min_size=3, max_size=3, unique=True))
    macs = draw(st.lists(MACS, min_size=3, max_size=3, unique=True))
    boot = st.builds(KernelBoot, PATHS, st.none() | PATHS, st.text("abc =,.", max_size=8))
    agent = draw(st.booleans())
    return Machine(
        cpus=draw(st.integers(1, 255)),
        memory_mib=draw(st.integers(8, 65_536)),
        type=board,
        version=draw(st.none() | st.just(f"{VERSION[board]}7.2")),
        cpu_model=draw(st.none() | st.sampled_from(["qemu64", "Skylake-Server-v4", "max,+aes,-vmx,level=4"])),
        firmware=Firmware.BIOS if hot else draw(st.sampled_from(Firmware)),
        boot=draw(st.none() | boot if bare_disks else boot),
        disks=tuple(replace(disk, name=name) for disk, name in zip(bare_disks, disk_names, strict=False)),
        nics=tuple(replace(nic, name=f"n{place}", mac=macs[place]) for place, nic in enumerate(bare_nics)),
        guest_agent=agent,
        cloud_init=draw(st.none() | st.builds(CloudInit, TEXTS, TEXTS, TEXTS)),
        watch=draw(
            st.builds(
                GuestWatch,
                st.sampled_from(OnPanic),
                st.just(agent),
                SECONDS,
                SECONDS,
                SECONDS,
                st.integers(0, 1000),
                SECONDS,
            )
        ),
        stop_s=draw(SECONDS),
    )


@st.composite
def virtual_machines(draw: st.DrawFn) -> Workload:
    protection = draw(st.sampled_from(Protection))
    hot = protection is Protection.HOT
    pinned = draw(st.booleans()) and not hot
    machine = draw(machines(hot, pinned))
    stores = [disk.on for disk in machine.disks if disk.on != "local"]
    needs_on = protection is Protection.WARM and not stores
    warm_on = NAMES if needs_on else st.none() | NAMES
    warm = st.builds(WarmPolicy, SECONDS, st.integers(1, 1000), warm_on, st.integers(1, 100))
    hot_policy = st.builds(
        HotPolicy,
        st.floats(0.1, 5),
        st.floats(6, 10_000),
        st.floats(60, 60_000),
        st.floats(0.01, 0.95),
        st.none() | st.floats(1, 1000),
    )
    has_lock_elsewhere = draw(st.booleans())
    some_sites = st.lists(NAMES, min_size=2, max_size=3, unique=True)
    is_bound = draw(st.booleans())
    sites: list[str] = draw(some_sites) if is_bound else []
    return Workload(
        name=draw(NAMES),
        modules=(Module("vm", ()),),
        kind=Kind.VM,
        protection=protection,
        resources=Capacity(draw(st.floats(0, 64)), draw(st.integers(0, 4096))),
        placement=PlacementRules(
            sites=tuple(sites),
            hosts=("a",) if pinned else (),
            prefer_sites=tuple(draw(st.lists(st.sampled_from(sites), unique=True)) if sites else ()),
            apart=draw(st.sampled_from(Apart)) if hot else Apart.HOST,
        ),
        data_on=(draw(NAMES) if has_lock_elsewhere else stores[0]) if stores else None,
        machine=machine,
        warm=draw(warm) if protection is Protection.WARM else WarmPolicy(),
        hot=draw(hot_policy) if hot else HotPolicy(),
    )


@settings(deadline=None, max_examples=80)
@given(virtual_machines())
def test_a_machine_that_was_written_reads_back_as_itself_and_fits_schema_and_store(workload: Workload) -> None:
    document = to_document(workload)
    SCHEMA.validate(document)
    assert workload_from_document(document) == workload
    assert parse_workload(toml_text(document)) == workload
    assert machine_problem(workload) == ""


ONLY_READING_KNOWS = re.compile(
    r"is for protection|for a service, only for a vm|neither a disk nor a kernel|is none of type|must be true where"
    r"|needs the guest's agent|for the second time|neither a size nor a source|leaves it empty|stands beside"
    r"|connected to nothing"
    r"|under hot protection|hot standby cannot follow|for the standby|must be (above|below)|kept on one host"
    r"|no datastore for its checkpoints|address of many|nobody's address|not among the sites|the workload itself"
    r"|which cannot be read from here"
)
ADDED = st.sampled_from(
    [
        "x",
        "on",
        "bridge",
        "network",
        "source",
        "version",
        "apart",
        "protection",
        "kind",
        "hot",
        "warm",
        "module",
        "boot",
        "mac",
    ]
)
MORE_NASTY = [
    *NASTY,
    *("cold", "warm", "hot", "local", "uefi", "pc", "virtio", "sata", "pc-q35-7.2", "/a/../b"),
    *("52:54:00:12:34:56", "01:00:00:00:00:00"),
    *({"enabled": True}, [{"name": "a"}], 1e9, False),
]


@settings(deadline=None, max_examples=250)
@given(virtual_machines(), st.data())
def test_schema_reader_and_store_agree_on_what_a_machine_may_be(workload: Workload, data: st.DataObject) -> None:
    document = copy.deepcopy(to_document(workload))
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(document)))
        change = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if change == "remove":
            del container[key]
        elif change == "add" and isinstance(container, dict):
            container[data.draw(ADDED)] = copy.deepcopy(data.draw(st.sampled_from(MORE_NASTY)))
        else:
            container[key] = copy.deepcopy(data.draw(st.sampled_from(MORE_NASTY)))
        if not document:
            break
    refused = refusal(lambda: workload_from_document(document))
    if refused is None:
        SCHEMA.validate(document)
        read = workload_from_document(document)
        assert machine_problem(read) == ""
        assert workload_from_document(to_document(read)) == read
    elif SCHEMA.is_valid(document):
        assert all(ONLY_READING_KNOWS.search(problem.sentence) for problem in refused.problems), refused.cause


LINES = st.sampled_from(
    [
        'name = "a"',
        'kind = "vm"',
        'protection = "hot"',
        'protection = "warm"',
        "[vm]",
        "[vm.boot]",
        "[[vm.disk]]",
        "[vm.disk]",
        "[[vm.nic]]",
        "[vm.cloud_init]",
        "[vm.watch]",
        "[warm]",
        "[hot]",
        "[placement]",
        "vm = 1",
        "vm.disk = [1, {}]",
        "vm.nic = [[]]",
        "name = 'b'",
        "on = 's'",
        "size_mib = 1",
        "source = '/x'",
        "bridge = 'br0'",
        "network = 'n'",
        "mac = '52:54:00:00:00:01'",
        "hosts = ['a']",
        "hosts = 1",
        "sites = [1]",
        "apart = 'site'",
        "user_data_file = '/etc/hostname'",
        "user_data_file = '\\u0000'",
        "kernel = '/k'",
        "enabled = true",
        "guest_agent = 1",
        "cpus = 2",
        "floor_ms = 1000",
        "[",
    ]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(LINES, max_size=14).map("\n".join), st.booleans())
def test_any_text_is_read_or_told(text: str, from_disk: bool) -> None:
    refused = refusal(lambda: parse_workload(text, "f", Path("/nonexistent") if from_disk else None))
    if refused is None:
        assert machine_problem(parse_workload(text, "f", Path("/nonexistent") if from_disk else None)) == ""
    else:
        assert all(problem.sentence and problem.fix for problem in refused.problems)
