"""Packages in a real cluster: fetched and installed where their workload goes, and given up when they are no good."""

import io
import time
from pathlib import Path
from typing import Any

from outlive.client import Client
from outlive.depot.archive import build_archive
from outlive.lab import ready
from outlive.lab import service_demo as demo
from outlive.lab.lab import Lab
from outlive.lab.watching import Counting, counting_clients, watched

from .looks import recorded
from .shared import SharedLab

WORKLOAD = demo.WORKLOAD
SOON_S = 60.0
PUSHED_TO = "c"

FILE = f"""
name = "{WORKLOAD}"
package = "store@{{versions}}"
data_on = "shared"

[upgrade]
healthy_within_s = 20
watch_s = 1

[placement]
hosts = ["a", "b"]

[[virtual_ip]]
address = "{demo.ADDRESS}/24"

[module.redis]
"""

SETTINGS = """
appendonly yes
appendfsync always
save ""
protected-mode no
"""


def package(folder: Path, name: str, version: str, rest: str = "", **files: str) -> bytes:
    """The archive of a package with these files, by path with `_` for '/'; all are programs."""
    content = folder / f"{name}-{version}"
    (content / "files").mkdir(parents=True)
    (content / "package.toml").write_text(f'name = "{name}"\nversion = "{version}"\n{rest}')
    for path, text in files.items():
        file = content / "files" / path.replace("_", "/")
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    archive = io.BytesIO()
    build_archive(content, archive)
    return archive.getvalue()


def store(folder: Path, version: str, serve: str) -> bytes:
    """A package that needs another, finishes installing, starts Redis by its own program and tells whether it works."""
    port = demo.PORT
    rest = f"""
[dependencies]
settings = "^1"

[install]
command = ["bin/setup"]

[start]
command = ["bin/serve"]

[check]
command = ["/usr/bin/redis-cli", "-h", "{{address}}", "-p", "{port}", "ping"]
"""
    setup = '#!/bin/sh -e\ncp "$OUTLIVE_WITH_SETTINGS/redis.conf" redis.conf\n'
    return package(folder, "store", version, rest, bin_setup=setup, bin_serve=serve)


SERVES = (
    "#!/bin/sh\n"
    'exec /usr/bin/redis-server redis.conf --bind "$OUTLIVE_ADDRESS" '
    f'--port {demo.PORT} --dir "$OUTLIVE_DATA" --daemonize no\n'
)
FAILS = "#!/bin/sh\nsleep 0.2\nexit 3\n"


def push(lab: Lab, archive: bytes) -> None:
    """Push a package to the agent of one host, to be kept there alone."""
    Client(str(lab.plan.api(PUSHED_TO))).upload("/v1/packages?copies=1", [archive])


def apply(lab: Lab, versions: str) -> dict[str, Any]:
    """Apply the workload's file with these versions of its package, by an agent that knows of them."""
    text = FILE.replace("{versions}", versions).encode()
    found: dict[str, Any] = Client(str(lab.plan.api(PUSHED_TO))).put(f"/v1/workloads/{WORKLOAD}", text)
    return found


def until_rolled(lab: Lab, state: str) -> dict[str, Any]:
    """Wait until the change of the workload's package has ended like this; the workload's record."""
    deadline = time.monotonic() + SOON_S
    while True:
        record: dict[str, Any] = ready.any_client(lab).get(f"/v1/workloads/{WORKLOAD}")["record"]
        if record["rollout"] is not None and record["rollout"]["state"] == state:
            return record
        assert time.monotonic() < deadline, record
        time.sleep(0.1)


def runs_on(lab: Lab, host: str, *, besides: str) -> None:
    """Wait until a host runs the workload."""

    def there(found: dict[str, Any]) -> bool:
        each = ready.workload(found, WORKLOAD)
        return each is not None and (each["state"], each["host"]) == ("running", host)

    ready.until(lab, f"it runs on {host}", there, SOON_S, besides=(besides,))


def counts(counting: Counting) -> None:
    """Wait until clients are answered anew."""
    now = time.time()
    assert counting.wait_for(lambda: counting.acknowledged[-1][0] > now + 0.2, SOON_S)


def test_a_package_follows_its_workload_and_a_bad_version_of_it_goes_back(shared: SharedLab, tmp_path: Path) -> None:
    lab = shared.lab()
    ready.until_ready(lab, SOON_S)
    push(lab, package(tmp_path, "settings", "1.0.0", **{"redis.conf": SETTINGS}))
    push(lab, store(tmp_path, "1.0.0", SERVES))
    apply(lab, "^1")
    primary = ready.until_running(lab, WORKLOAD, SOON_S)
    with (
        watched(lab, WORKLOAD) as sightings,
        counting_clients(lab, demo.ADDRESS, demo.PORT, demo.CLIENTS) as counting,
    ):
        assert counting.wait_for(lambda: len(counting.acknowledged) > 20, SOON_S)

        # A bad version is tried once, and the one before is back with all that clients were told.
        push(lab, store(tmp_path, "2.0.0", FAILS))
        apply(lab, "^2")
        record = until_rolled(lab, "back")
        assert record["workload"]["package"]["version"] == "1.0.0"
        counts(counting)
        shown = ready.any_client(lab).get("/v1/packages/store@2.0.0")
        why = shown["failed"][WORKLOAD]  # by its report, or by its heartbeat where that was faster
        assert "ended with code 3" in why or why == "module redis failed"

        # Its host dies: the other one has nothing of it yet, fetches it with what it needs, installs and starts it.
        lab.kill(primary)
        (other,) = {"a", "b"} - {primary}
        runs_on(lab, other, besides=primary)
        counts(counting)
        account = counting.finish()
    assert not sightings.double_run, sightings.both[:5]
    assert (account["lost"], account["duplicated"]) == (0, 0), account
    steps = [
        (event["kind"], event["text"].partition(":")[0])
        for event in recorded(lab, WORKLOAD, besides=(primary,))
        if event["kind"].startswith("package.") and event["host"] == other
    ]
    # The depot may have begun to fetch one of them a moment before, since it is named for what runs there.
    assert {"package.fetching", "package.verified"} <= {kind for kind, _ in steps}, steps
    assert {("package.installed", key) for key in ("settings@1.0.0", "store@1.0.0")} <= set(steps), steps
