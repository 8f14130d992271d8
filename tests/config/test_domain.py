"""A libvirt domain becomes the machine that it was, and whatever does not is told with its line and a reason."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlive.cluster.workload import Protection
from outlive.config import domain_xml
from outlive.config.domain import Imported, import_domain
from outlive.config.domain_xml import DomainInvalid
from outlive.config.toml_writer import toml_text
from outlive.config.workload_file import parse_workload

DOMAINS = Path(__file__).parent / "domains"
FILES = sorted(DOMAINS.glob("*.xml"))


def imported(file: str, **options: Any) -> Imported:
    return import_domain((DOMAINS / file).read_bytes(), file, **options)


def parts(read: Imported) -> list[str]:
    return [left.part for left in read.left]


def test_an_ordinary_domain_is_taken_over_whole() -> None:
    read = imported("web.xml", on="shared")
    assert read.document == {
        "name": "web01",
        "kind": "vm",
        "protection": "cold",
        "vm": {
            "memory_mib": 2048,
            "cpus": 2,
            "cpu_model": "Haswell-noTSX-IBRS,+aes,-vmx",
            "type": "q35",
            "version": "pc-q35-7.2",
            "disk": [
                {"name": "vda", "source": "/var/lib/libvirt/images/web01.qcow2", "format": "qcow2", "on": "shared"},
                {"name": "vdb", "source": "/dev/vg0/web01-data", "on": "shared", "read_only": True},
            ],
            "nic": [{"name": "nic0", "bridge": "br0", "mac": "52:54:00:c0:ff:ee"}],
            "guest_agent": True,
            "watch": {"panic": "restart"},
        },
    }
    assert parts(read) == ["uuid", "metadata", "clock/timer"]


def test_everything_of_an_old_domain_that_cannot_be_is_told_in_the_order_of_its_lines() -> None:
    read = imported("files.xml", on="shared")
    vm = read.document["vm"]
    assert read.document["name"] == "file-server-old"
    assert (vm["memory_mib"], vm["cpus"], vm["type"], "version" in vm, "cpu_model" in vm) == (
        1431,
        1,
        "pc",
        False,
        False,
    )
    assert [(disk["name"], disk.get("bus")) for disk in vm["disk"]] == [("sda", "scsi"), ("hdb", "sata")]
    assert vm["nic"] == [
        {"name": "nic0", "network": "default", "mac": "52:54:00:11:22:33", "model": "e1000e"},
        {"name": "nic1", "bridge": "br1", "model": "e1000e"},
    ]
    assert parts(read) == [
        "name",
        "title",
        "description",
        "maxMemory",
        "currentMemory",
        "memoryBacking",
        "vcpu",
        "vcpu/cpuset",
        "cputune",
        "os/type",
        "os/loader",
        "os/boot=cdrom",
        "os/bootmenu",
        "cpu",
        "cpu/topology",
        "clock",
        "on_poweroff",
        "on_crash",
        "devices/disk cdrom",
        "devices/disk hdb/target",
        "devices/disk hdb/iotune",
        "devices/disk sda/serial",
        "devices/disk vda",
        "devices/disk vdb",
        "devices/interface 52:54:00:11:22:33/model",
        "devices/interface 52:54:00:11:22:33/source",
        "devices/interface 52:54:00:11:22:33/vlan",
        "devices/interface 52:54:00:11:22:34",
        "devices/interface 52:54:00:11:22:33/mac",
        "devices/interface 52:54:00:11:22:33/model",
        "devices/serial tcp",
        "devices/channel com.redhat.spice.0",
        "devices/input tablet",
        "devices/graphics vnc",
        "devices/video",
        "devices/hostdev pci",
        "devices/filesystem mount",
        "devices/memballoon",
        "devices/rng",
        "devices/quantum-link",
        "seclabel",
    ]
    assert "secret" not in str(read), "a password is not told"
    lines = (DOMAINS / "files.xml").read_text().splitlines()
    for left in read.left:
        assert left.why
        assert "<" in lines[left.line - 1]


def test_a_domain_with_uefi_is_taken_over_cold_and_loses_it_hot() -> None:
    cold = imported("desktop.xml", on="shared")
    assert cold.document["vm"]["firmware"] == "uefi"
    assert {"os/nvram", "os/loader", "devices/tpm", "qemu:commandline", "features/hyperv", "devices/watchdog"} <= set(
        parts(cold)
    )
    assert cold.document["vm"]["watch"] == {"panic": "leave"}
    hot = imported("desktop.xml", protection=Protection.HOT)
    vm = hot.document["vm"]
    assert ("firmware" in vm, "bus" in vm["disk"][0], "model" in vm["nic"][0]) == (False, False, False)
    assert {"os/firmware", "devices/disk sda/target", "devices/interface/model"} <= set(parts(hot))


def test_a_kernel_is_booted_as_before() -> None:
    read = imported("kernel.xml")
    assert read.document["vm"]["boot"] == {
        "kernel": "/boot/vmlinuz-6.1.0-18-amd64",
        "initrd": "/srv/sensor/initrd.img",
        "append": "console=ttyS0 root=/dev/ram0 quiet",
    }
    assert read.document["vm"]["memory_mib"] == 256
    assert read.document["vm"]["nic"] == [{"name": "nic0", "network": "lab-net"}]
    assert [left.why for left in read.left] == [
        "it is on Outlive's network lab-net, which spans hosts: make it with `outlive network create lab-net`"
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
@pytest.mark.parametrize("protection", Protection)
def test_what_is_written_of_a_domain_can_be_applied(path: Path, protection: Protection) -> None:
    read = imported(
        path.name, protection=protection, on=None if protection is Protection.HOT else "shared", name="other"
    )
    workload = parse_workload(toml_text(read.document))
    assert (workload.name, workload.protection) == ("other", protection)


def test_a_machine_may_stay_on_one_host_with_its_disks() -> None:
    workload = parse_workload(toml_text(imported("web.xml", host="a").document))
    assert workload.placement.hosts == ("a",)
    assert workload.data_on is None


@pytest.mark.parametrize(
    ("xml", "told"),
    [
        (b"", "no element found"),
        (b"<domain>", "line 1: no element found"),
        (b"hello", "syntax error"),
        (b"<network><name>x</name></network>", "its first element is <network>"),
        (b"<domain type='xen'/>", "the hypervisor xen"),
        (b"<domain type='lxc'/>", "the hypervisor lxc"),
        (b"<domain type='kvm'><os><type arch='aarch64'>hvm</type></os></domain>", "its processor is aarch64"),
        (b"<domain type='kvm'><os><type>linux</type></os></domain>", "whole ones"),
        (b"<domain type='kvm'><name>a</name></domain>", "neither a disk nor a kernel"),
        (b"<!DOCTYPE domain><domain/>", "document type"),
        (b'<!DOCTYPE d [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><domain>&b;</domain>', "document type"),
        (b'<!DOCTYPE d SYSTEM "file:///etc/passwd"><domain/>', "document type"),
        (b"<domain>&undeclared;</domain>", "undefined entity"),
        (b'<?xml version="1.0" encoding="no-such"?><domain/>', "encoding"),
        (b"<d>" * 100, "within each other"),
        (b"<domain>" + b"<a/>" * 30_000 + b"</domain>", "more than 20000 elements"),
        (b" " * (domain_xml.MOST_BYTES + 1), "larger than 1024 KiB"),
    ],
)
def test_what_is_no_domain_is_refused_with_the_reason_and_nothing_is_opened_or_expanded(xml: bytes, told: str) -> None:
    with pytest.raises(DomainInvalid) as caught:
        import_domain(xml, "x.xml", on="shared")
    assert told in caught.value.cause
    assert caught.value.exit_code == 2


def test_a_cold_machine_without_a_place_for_its_disks_is_refused_and_says_which_words_help() -> None:
    with pytest.raises(DomainInvalid) as caught:
        imported("web.xml")
    assert "is kept on one host" in caught.value.cause
    assert "--on DATASTORE" in caught.value.remedy


PIECES = st.sampled_from(
    [
        "<domain>",
        "</domain>",
        "<domain type='kvm'>",
        "<name>",
        "</name>",
        "<os>",
        "</os>",
        "<devices>",
        "</devices>",
        "<disk type='file'>",
        "</disk>",
        "<source file='/a'/>",
        "<source file='../b'/>",
        "<source network=''/>",
        "<driver type='raw'/>",
        "<driver/>",
        "<target dev='vda'/>",
        "<target dev='\u00e9'/>",
        "<target/>",
        "<boot order='x'/>",
        "<interface type='bridge'>",
        "</interface>",
        "<source bridge='br0'/>",
        "<mac address='01:00:00:00:00:00'/>",
        "<memory unit='TiB'>",
        "</memory>",
        "1",
        "-1",
        "9" * 30,
        "<vcpu>",
        "</vcpu>",
        "<vcpu current='99999'/>",
        "&lt;",
        "&#0;",
        "<cpu mode='custom'>",
        "<model>",
        "</model>",
        "</cpu>",
        "<feature policy='x'/>",
        "<kernel>",
        "</kernel>",
        "/k",
        "<type machine='pc-q35-7.2,x'>",
        "</type>",
        "<on_crash/>",
        "<clock><timer/></clock>",
        "<!-- x -->",
        "<![CDATA[<x>]]>",
        "\x00",
        "\u202e",
        " ",
        "<\u00e9/>",
        "<features><x/></features>",
    ]
)


def is_read_or_told(raw: bytes, protection: Protection) -> None:
    try:
        read = import_domain(raw, "f", protection=protection, on=None if protection is Protection.HOT else "s")
    except DomainInvalid:
        return
    parse_workload(toml_text(read.document))
    assert all(left.why and (left.part + left.why).isprintable() for left in read.left)


@settings(deadline=None, max_examples=300)
@given(st.lists(PIECES, max_size=25).map("".join).map(str.encode) | st.binary(), st.sampled_from(Protection))
def test_any_bytes_are_read_or_told(raw: bytes, protection: Protection) -> None:
    is_read_or_told(raw, protection)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(FILES), st.data(), st.sampled_from(Protection))
def test_a_domain_with_pieces_changed_is_read_or_told(path: Path, data: st.DataObject, protection: Protection) -> None:
    lines = path.read_text().splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["remove", "twice", "piece", "value"])):
            case "remove":
                lines[place] = ""
            case "twice":
                lines[place] *= 2
            case "piece":
                lines[place] += data.draw(PIECES)
            case "value":
                value = data.draw(
                    st.sampled_from(["", "x", "0", "-1", "/", "/..", "a b", "1" * 40, "\u00e9", ",", "none"])
                )
                before, quote, rest = lines[place].partition("'")
                lines[place] = before + quote + value + rest[rest.find("'") :] if quote else lines[place]
    is_read_or_told("".join(lines).encode(), protection)


def test_names_of_another_spelling_are_made_ours_and_told() -> None:
    read = imported("files.xml", on="shared")
    assert replace(read.left[0], line=0).why.endswith("became 'file-server-old'")
