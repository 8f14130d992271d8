"""A package is installed whole beside its other versions, or not at all; what killed attempts left is cleared away."""

import os
import stat
import subprocess
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from outlive.depot.commands import MOST_LOG_BYTES, run
from outlive.depot.errors import ComponentDamaged, DepotBusy, InstallFailed, PackageMissing
from outlive.depot.files import try_lock
from outlive.depot.install import LEASH, Installations, Progress, Step
from outlive.depot.installed import Action, Installed, read_installed
from outlive.depot.shelf import Shelf

from .package_scene import FILES, component, files_in, install_all, on_shelf

INSTALL = '[install]\ncommand = ["bin/setup"]\n'
AT_ONCE_S = 0.0


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "depot")


@pytest.fixture
def installations(tmp_path: Path, shelf: Shelf) -> Installations:
    return Installations(tmp_path / "packages", shelf)


def setup(*lines: str) -> dict[str, bytes]:
    """Files with an install command that does this."""
    return {**FILES, "bin/setup": "\n".join(["#!/bin/sh", "set -e", *lines, ""]).encode()}


def steps(told: Iterable[Progress]) -> list[str]:
    return [f"{progress.name} {progress.version} {progress.step}" for progress in told]


def runs(path: Path) -> bool:
    """Whether a process whose pid stands in a file runs."""
    with_pid = Path("/proc", path.read_text().strip(), "stat")
    return with_pid.exists() and with_pid.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_package_is_installed_and_every_step_is_told(installations: Installations, shelf: Shelf) -> None:
    id = on_shelf(shelf, files=setup("umask; pwd; env", "echo made > made"), more=INSTALL)
    told: list[Progress] = []
    installed = installations.install(id, report=told.append)
    assert steps(told) == [
        "web 1.0.0 verifying",
        "web 1.0.0 installing",
        "web 1.0.0 checking",
        "web 1.0.0 installed",
    ]
    assert files_in(installed.files) == ["bin/run", "bin/setup", "etc/web.conf", "made"]
    assert [stat.S_IMODE((installed.files / name).stat().st_mode) for name in ("bin/run", "etc/web.conf", "bin")] == [
        0o755,
        0o644,
        0o755,
    ]
    assert installations.verify(installed) == ()
    assert installations.all() == (installed,)
    assert installations.find(id) == installed
    log = (installed.folder / "install.log").read_text().split("\n")
    assert log[0] == "0022"
    assert log[1] == str(installed.files)
    assert f"OUTLIVE_PACKAGE={installed.files}" in log
    assert "OUTLIVE_PACKAGE_NAME=web" in log
    assert "OUTLIVE_PACKAGE_VERSION=1.0.0" in log
    assert not [line for line in log if line.startswith(("HOME=", "PYTEST"))]


def test_what_is_installed_is_not_installed_again(installations: Installations, shelf: Shelf) -> None:
    id = on_shelf(shelf, files=setup("date +%N >> ../../../count"), more=INSTALL)
    first = installations.install(id)
    told: list[Progress] = []
    assert installations.install(id, report=told.append) == first
    assert steps(told) == ["web 1.0.0 installed"]
    assert len((installations.folder / "count").read_text().splitlines()) == 1


def test_versions_lie_beside_each_other(installations: Installations, shelf: Shelf) -> None:
    old = installations.install(on_shelf(shelf, version="1.9.0"))
    new = installations.install(on_shelf(shelf, version="1.10.0"))
    assert [one.manifest.version for one in installations.all()] == ["1.9.0", "1.10.0"]
    assert old.folder.parent == new.folder.parent
    assert installations.verify(old) == installations.verify(new) == ()


def test_dependencies_are_installed_first_and_found_by_commands(installations: Installations, shelf: Shelf) -> None:
    tls = on_shelf(shelf, "tls", "2.0.0")
    lib = on_shelf(shelf, "my-lib", "1.0.0", needs={"tls": "*"})
    web = on_shelf(shelf, needs={"my-lib": "^1"}, files=setup("cat $OUTLIVE_WITH_MY_LIB/etc/web.conf"), more=INSTALL)
    installed = install_all(installations, [tls, lib, web])
    assert [one.manifest.name for one in installed] == ["tls", "my-lib", "web"]
    assert installed[2].environment(Action.START)["OUTLIVE_WITH_MY_LIB"] == str(installed[1].files)
    assert "OUTLIVE_WITH_TLS" not in installed[2].environment(Action.START)
    assert (installed[2].folder / "install.log").read_bytes() == FILES["etc/web.conf"]


def test_another_dependency_makes_another_installation(installations: Installations, shelf: Shelf) -> None:
    old, new = (on_shelf(shelf, "lib", version) for version in ("1.0.0", "1.1.0"))
    web = on_shelf(shelf, needs={"lib": "^1"})
    (_, with_old), (_, with_new) = (install_all(installations, [lib, web]) for lib in (old, new))
    assert with_old.folder != with_new.folder
    assert len(installations.all()) == 4
    assert installations.find(web) is None
    assert installations.find(web, [installations.install(old)]) == with_old


def test_a_package_is_not_installed_without_what_it_needs(installations: Installations, shelf: Shelf) -> None:
    lib = installations.install(on_shelf(shelf, "lib", "2.0.0"))
    web, alone = on_shelf(shelf, needs={"lib": "^1"}), on_shelf(shelf, "alone")
    with pytest.raises(InstallFailed, match="without lib"):
        installations.install(web)
    with pytest.raises(InstallFailed, match="without lib"):
        installations.install(web, [lib])
    with pytest.raises(InstallFailed, match="does not need lib"):
        installations.install(alone, [lib])
    with pytest.raises(PackageMissing):
        installations.install("a" * 64)
    assert installations.all() == (lib,)


def test_words_in_braces_are_filled_in(installations: Installations, shelf: Shelf) -> None:
    more = '[start]\ncommand = ["bin/run", "{package}/etc", "{{print}}"]\nenvironment = { A = "{package}" }'
    installed = installations.install(on_shelf(shelf, more=more))
    files = installed.files
    assert installed.command(Action.START) == (f"{files}/bin/run", f"{files}/etc", "{print}")
    assert installed.environment(Action.START)["A"] == str(files)
    assert installed.command(Action.CHECK) == ()


# --- failing


@pytest.mark.parametrize(
    ("lines", "told", "cause"),
    [
        (["echo it is no use", "exit 3"], "ended with status 3", "it is no use"),
        (["kill -9 $$"], "ended by the signal KILL", ""),
        (["echo changed >> etc/web.conf"], "changed files", "'etc/web.conf' has 10008 bytes instead of 10000."),
        (["chmod 600 etc/web.conf"], "changed files", "permissions 600 instead of 644"),
        (["rm -r etc"], "changed files", "is missing"),
        (["mv etc/web.conf x; ln -s ../x etc/web.conf"], "changed files", "is no file any more"),
        (["tr 8 9 <etc/web.conf >x; cat x >etc/web.conf"], "changed files", "was changed"),
    ],
)
def test_a_failed_install_leaves_nothing_and_other_versions_as_they_were(
    installations: Installations, shelf: Shelf, lines: list[str], told: str, cause: str
) -> None:
    old = installations.install(on_shelf(shelf, version="1.0.0"))
    before = files_in(installations.folder)
    id = on_shelf(shelf, version="1.1.0", files=setup(*lines), more=INSTALL)
    steps_told: list[Progress] = []
    with pytest.raises(InstallFailed, match=told) as caught:
        installations.install(id, report=steps_told.append)
    assert cause in caught.value.cause
    assert steps_told[-1].step is Step.FAILED
    assert told in steps_told[-1].detail
    assert files_in(installations.folder) == before
    assert installations.all() == (old,)
    assert installations.verify(old) == ()


def test_an_install_command_that_cannot_be_started_is_told(installations: Installations, shelf: Shelf) -> None:
    id = on_shelf(shelf, files={"bin/setup": b"#!/no/such/shell\n"}, more=INSTALL)
    with pytest.raises(InstallFailed, match="could not be started"):
        installations.install(id)
    assert installations.all() == ()


def test_an_install_command_has_its_time_and_no_more(installations: Installations, shelf: Shelf) -> None:
    lines = ["echo $$ > ../../../pid", "sleep 1000"]
    id = on_shelf(shelf, files=setup(*lines), more=INSTALL + "timeout_s = 0.3")
    with pytest.raises(InstallFailed, match=r"took longer than 0\.3 s"):
        installations.install(id)
    assert not runs(installations.folder / "pid")
    assert files_in(installations.folder, but=["pid", ".lock", LEASH]) == []


def test_nothing_that_an_install_command_starts_outlives_it(installations: Installations, shelf: Shelf) -> None:
    lines = [
        "(trap '' TERM HUP; echo start >> ../../../starts; exec sleep 1000) & echo $! > ../../../plain",
        "setsid sh -c 'echo $$ > ../../../daemon; sleep 1000; true' </dev/null >/dev/null 2>&1 &",
        "while [ ! -s ../../../daemon ]; do sleep 0.01; done",
    ]
    installed = installations.install(on_shelf(shelf, files=setup(*lines), more=INSTALL))
    assert not runs(installations.folder / "plain")
    assert not runs(installations.folder / "daemon")
    assert installations.verify(installed) == ()


def test_a_log_is_kept_within_bounds_and_its_end_is_told(installations: Installations, shelf: Shelf) -> None:
    lines = ["head -c 5000000 /dev/zero | tr '\\0' x", "echo the very end"]
    installed = installations.install(on_shelf(shelf, files=setup(*lines), more=INSTALL))
    assert (installed.folder / "install.log").stat().st_size == MOST_LOG_BYTES
    id = on_shelf(shelf, version="1.1.0", files=setup(*lines, "exit 1"), more=INSTALL)
    with pytest.raises(InstallFailed) as caught:
        installations.install(id)
    assert caught.value.cause.endswith("the very end")
    assert len(caught.value.cause) < 5000


def test_an_install_can_be_cancelled(installations: Installations, shelf: Shelf) -> None:
    id = on_shelf(shelf, files=setup("echo $$ > ../../../pid", "sleep 1000"), more=INSTALL)
    cancelled = threading.Event()

    def cancel(progress: Progress) -> None:
        if progress.step is Step.INSTALLING:
            threading.Timer(0.2, cancelled.set).start()

    with pytest.raises(InstallFailed, match="cancelled"):
        installations.install(id, report=cancel, cancelled=cancelled)
    assert not runs(installations.folder / "pid")
    with pytest.raises(InstallFailed, match="cancelled"):
        installations.install(id, cancelled=cancelled)
    assert installations.all() == ()


def test_a_damaged_component_is_never_installed(installations: Installations, shelf: Shelf) -> None:
    id = on_shelf(shelf)
    conf = component(FILES["etc/web.conf"])
    (path,) = (shelf.folder / "components").rglob(f"{conf.digest}*")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ComponentDamaged):
        installations.install(id)
    assert installations.all() == ()
    shelf.verify(id, repair=True)
    assert on_shelf(shelf) == id
    assert installations.verify(installations.install(id)) == ()


# --- at once, and after a death


def test_installing_the_same_twice_at_once_installs_it_once(installations: Installations, shelf: Shelf) -> None:
    id = on_shelf(shelf, files=setup("echo x >> ../../../count", "sleep 0.2"), more=INSTALL)
    found: list[Installed] = []
    installers = [threading.Thread(target=lambda: found.append(installations.install(id))) for _ in range(4)]
    for installer in installers:
        installer.start()
    for installer in installers:
        installer.join()
    assert len(found) == 4
    assert len({one.folder for one in found}) == 1
    assert (installations.folder / "count").read_text() == "x\n"


def test_whoever_waits_too_long_is_told(installations: Installations, shelf: Shelf) -> None:
    id = on_shelf(shelf)
    with installations.locked("web", AT_ONCE_S), pytest.raises(DepotBusy, match="web"):
        installations.install(id, timeout_s=0.1)
    cancelled = threading.Event()
    cancelled.set()
    with installations.locked("web", AT_ONCE_S), pytest.raises(DepotBusy, match="cancelled"):
        installations.install(id, cancelled=cancelled)


def test_what_a_killed_agent_left_running_is_ended_before_the_next_try(
    installations: Installations, shelf: Shelf, tmp_path: Path
) -> None:
    """The leash is held as it is by the install command of an agent that was killed."""
    id = on_shelf(shelf, files=setup("echo ok"), more=INSTALL)
    leash = installations.folder / "web" / LEASH
    leash.parent.mkdir(parents=True)
    orphan = subprocess.Popen(["flock", str(leash), "sleep", "1000"])
    try:
        while subprocess.run(["flock", "-n", str(leash), "true"]).returncode == 0:
            time.sleep(0.01)
        installations.install(id)
        assert orphan.wait(60) == -9
    finally:
        orphan.kill()
        orphan.wait()


def test_no_command_is_begun_whose_leash_another_has(tmp_path: Path) -> None:
    leash, made = tmp_path / LEASH, tmp_path / "made"
    with leash.open("w") as held:
        assert try_lock(held.fileno())
        with pytest.raises(InstallFailed, match="was not begun"):
            run(["touch", str(made)], {}, tmp_path, timeout_s=60, leash=leash, log=tmp_path / "log")
    assert not made.exists()


def test_what_is_taken_into_use_while_others_are_uninstalled_stays_or_is_installed_anew(
    installations: Installations, shelf: Shelf
) -> None:
    id = on_shelf(shelf)
    installations.install(id)
    using: list[Installed] = []
    found: list[Installed] = []
    asked, decided = threading.Event(), threading.Event()

    def used() -> list[Installed]:
        asked.set()
        decided.wait(0.2)  # for as long as whoever wants to use it might need
        return list(using)

    def begin_to_use() -> None:
        asked.wait()
        found.append(installations.install(id))
        decided.set()

    thread = threading.Thread(target=begin_to_use)
    thread.start()
    installations.uninstall_unused(used)
    thread.join()
    assert installations.verify(found[0]) == ()
    assert installations.all() == (found[0],)


def test_a_folder_without_a_mark_or_with_a_false_one_is_no_installation(
    installations: Installations, shelf: Shelf
) -> None:
    id = on_shelf(shelf)
    installed = installations.install(id)
    mark = installed.folder / "installed.json"
    whole = mark.read_bytes()
    other_version = whole.replace(b'"1.0.0"', b'"1.0.1"')
    led_astray = whole.replace(b'"with":{}', b'"with":{"a":"../x"}')
    other_format = whole.replace(b'"format":1', b'"format":2')
    no_text = b'{"\x80":1}'
    for raw in (b"", whole[:-1], b"{}", other_version, led_astray, other_format, no_text, b"[" * 100_000):
        assert raw != whole
        mark.write_bytes(raw)
        assert read_installed(installed.folder) is None
        assert installations.all() == ()
    (installed.files / "half").write_text("of an attempt that was killed")
    assert installations.install(id) == installed
    assert files_in(installed.files) == ["bin/run", "etc/web.conf"]


# --- afterwards


def test_what_was_changed_since_is_told(installations: Installations, shelf: Shelf) -> None:
    installed = installations.install(on_shelf(shelf))
    (installed.files / "own").write_text("of the program's own")
    assert installations.verify(installed) == ()
    (installed.files / "etc" / "web.conf").unlink()
    (installed.files / "bin" / "run").chmod(0o700)
    assert installations.verify(installed) == (
        "The file 'bin/run' has the permissions 700 instead of 755.",
        "The file 'etc/web.conf' is missing.",
    )


def test_what_nobody_uses_is_uninstalled_with_what_killed_attempts_left(
    installations: Installations, shelf: Shelf
) -> None:
    lib, idle = (on_shelf(shelf, name) for name in ("lib", "idle"))
    old = on_shelf(shelf, version="1.0.0")
    new = on_shelf(shelf, version="1.1.0", needs={"lib": "*"})
    unused = install_all(installations, [idle, old])
    used = install_all(installations, [lib, new])
    left = installations.folder / "web" / "9.9.9-0123456789abcdef" / "files"
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    assert installations.uninstall_unused(lambda: [used[1]]) == unused
    assert installations.all() == used
    assert not left.parent.exists()
    assert installations.uninstall_unused(lambda: []) == used
    assert files_in(installations.folder, but=[".lock", LEASH]) == []


def test_what_is_being_installed_is_not_uninstalled(installations: Installations, shelf: Shelf) -> None:
    installed = installations.install(on_shelf(shelf))
    with installations.locked("web", AT_ONCE_S):
        assert installations.uninstall_unused(lambda: []) == ()
    assert installations.all() == (installed,)


def test_nothing_outside_is_removed_by_way_of_a_link(
    installations: Installations, shelf: Shelf, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    installations.install(on_shelf(shelf, files=setup(f"ln -s {outside} link"), more=INSTALL))
    installations.uninstall_unused(lambda: [])
    assert os.listdir(outside) == ["kept"]
    assert installations.all() == ()
