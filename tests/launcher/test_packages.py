"""The launcher's dealings with apt, on a machine made of stubs: what it asks for, and how it fails.

The stub machine has only the programs named here on PATH, so that compiler, Redis and etcd are missing.
"""

import json
import os
import shutil
from pathlib import Path

import pytest

from .conftest import Checkout, copy_checkout

NEEDED = (
    "cat chmod cmp cut date dpkg-query env flock head id mkdir mv readlink rm "
    "sed sh sha256sum sleep stat tail touch tr uname"
)
CALLS = "calls"


class Machine:
    """A folder of programs, some of them stubs that note how they were called."""

    def __init__(self, folder: Path, checkout: Checkout) -> None:
        self.folder = folder
        self.checkout = checkout
        folder.mkdir()
        for name in NEEDED.split():
            found = shutil.which(name)
            assert found, name
            (folder / name).symlink_to(found)
        for name in ("curl", "qemu-system-x86_64", "qemu-img", "mmdebstrap", "spin"):
            self.stub(name, "exit 0")
        self.stub("sudo", '[ "$1" != -n ] || shift; exec "$@"')
        self.stub("systemctl", "exit 0")
        checkout.environment = {**checkout.environment, "PATH": str(folder), "HOME": os.environ.get("HOME", "/")}

    def stub(self, name: str, body: str) -> None:
        """Add a program that notes its words and what forbids services to start, then does `body`."""
        note = f'echo "{name} $* ${{DEBIAN_FRONTEND:-}} ${{SYSTEMD_OFFLINE:-}}" >>{self.folder}/{CALLS}'
        program = self.folder / name
        program.write_text(f"#!/bin/sh\n{note if name != 'sudo' else ':'}\n{body}\n")
        program.chmod(0o755)

    def calls(self) -> list[str]:
        """Return each call's meaning: the program and its words that are not options."""
        noted = self.folder / CALLS
        lines = noted.read_text().splitlines() if noted.exists() else []
        return [" ".join(word for word in line.split() if not word.startswith(("-", "D"))) for line in lines]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    checkout = Checkout(copy_checkout(tmp_path / "checkout"), {"OUTLIVE_UV": str(tmp_path / "machine" / "uv")})
    machine = Machine(tmp_path / "machine", checkout)
    # Far enough to show that packages were dealt with: the next step fails and says so.
    machine.stub("uv", "echo the environment is not wanted here; exit 9")
    return machine


def installs(machine: Machine) -> str:
    """Return a stub's body that makes the missing programs appear when asked to install."""
    programs = " ".join(f"{machine.folder}/{name}" for name in ("cc", "redis-server", "etcd"))
    return f'case "$*" in *" install "*) for p in {programs}; do echo "#!/bin/sh" >$p; chmod +x $p; done ;; esac'


def test_only_what_is_missing_is_installed_and_no_service_starts(machine: Machine) -> None:
    machine.stub("apt-get", installs(machine))
    ended = machine.checkout.run("--version")
    assert "Debian packages: gcc redis-server etcd-server" in ended.stderr
    install, *rest = [call for call in machine.calls() if call.startswith("apt-get") and "install" in call]
    assert install == "apt-get install gcc redis-server etcd-server noninteractive 1"
    assert rest == []
    for service in ("redis-server.service", "etcd.service"):
        assert any(call.startswith("systemctl disable") and service in call for call in machine.calls())


def test_servers_that_were_there_before_keep_their_services(machine: Machine) -> None:
    machine.stub("redis-server", "exit 0")
    machine.stub("etcd", "exit 0")
    machine.stub("apt-get", installs(machine))
    machine.checkout.run("--version")
    assert not [call for call in machine.calls() if call.startswith("systemctl")]


def test_a_failed_install_is_mended_and_tried_once_more(machine: Machine) -> None:
    once = f"{machine.folder}/failed-once"
    machine.stub("dpkg", "exit 0")
    machine.stub(
        "apt-get",
        f'[ -e {once} ] || {{ case "$*" in *install*) touch {once}; exit 100 ;; esac; }}\n' + installs(machine),
    )
    ended = machine.checkout.run("--version")
    assert "Debian packages: gcc redis-server etcd-server failed" not in ended.stderr
    of_apt = [call.split()[:2] for call in machine.calls() if call.startswith(("apt-get", "dpkg"))]
    assert of_apt[-3:] == [["dpkg", "noninteractive"], ["apt-get", "update"], ["apt-get", "install"]]


def test_set_up_that_died_after_installing_servers_still_turns_their_services_off(machine: Machine) -> None:
    machine.stub("apt-get", installs(machine))
    machine.stub("systemctl", "exit 1")
    assert "The service redis-server of its package stays off" in machine.checkout.run("--version").stderr
    machine.stub("systemctl", "exit 0")
    machine.checkout.run("--version")
    disabled = [call for call in machine.calls() if call.startswith("systemctl")]
    assert ["etcd" in call for call in disabled] == [False, False, True]
    machine.checkout.run("--version")
    assert len([call for call in machine.calls() if call.startswith("systemctl")]) == 3


def test_a_failing_step_tells_its_last_lines_and_what_to_do(machine: Machine) -> None:
    machine.stub("dpkg", "exit 0")
    machine.stub("apt-get", 'echo "E: no such mirror, said \\"apt\\""; exit 100')
    ended = machine.checkout.run("status", "--json")
    assert ended.code == 1
    assert '    | E: no such mirror, said "apt"' in ended.stderr
    assert "  Do:  mend what the output names" in ended.stderr
    problem = json.loads(ended.stdout.splitlines()[-1])
    assert problem["id"] == "setup.failed"
    assert problem["title"].endswith("Debian packages: gcc redis-server etcd-server.")
    assert problem["exit_code"] == 1


def test_json_of_a_protected_command_is_not_ours(machine: Machine) -> None:
    machine.stub("apt-get", "exit 100")
    machine.stub("dpkg", "exit 0")
    assert machine.checkout.run("run", "--", "tool", "--json").stdout == ""


def test_without_apt_it_names_what_is_missing(machine: Machine) -> None:
    ended = machine.checkout.run("--version")
    assert ended.code == 1
    assert "These parts are missing: gcc redis-server etcd-server" in ended.stderr
    assert "no apt-get" in ended.stderr


def test_a_step_gets_nothing_to_read(machine: Machine) -> None:
    machine.stub("apt-get", "cat >&2 && echo read to the end; exit 100")
    machine.stub("dpkg", "exit 0")
    ended = machine.checkout.run("--version")
    assert "read to the end" in ended.stderr
