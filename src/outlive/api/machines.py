"""The API's paths of virtual machines: how one stands on a host, its display's picture, its console.

A request about a machine goes to the host where it runs; the paths below `/v1/hosts` are that host's own part, which
other agents ask. A console is one streamed answer, and what is typed comes in requests of its own, which name the
stream by a session; the session names its host, so that no agent remembers another's.
"""

import secrets
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from outlive.cluster import records as rec
from outlive.errors import UsageInvalid

from . import answers, relaying
from .boards import Boards, own_boards
from .bodies import body, decoded
from .declaring import RAW, query, route
from .problems import Encoded, NotFound, NotRunning
from .view import ConsoleUse, View

SESSION_HEADER = "Outlive-Console-Session"
HOST_HEADER = "Outlive-Host"
MOST_PICTURE_BYTES = 64 * 1024 * 1024
PICTURE_S = 35.0
MOST_REPLAY_BYTES = 1 << 20
MOST_TYPED_BYTES = 64 * 1024
TYPED_S = 15.0
MOST_SESSIONS = 64
PNG = "image/png"
TOLD = (
    (SESSION_HEADER, "Names this use of the console when something is typed."),
    (HOST_HEADER, "Where the machine runs."),
)


class Button(msgspec.Struct, forbid_unknown_fields=True):
    """Which button is pressed."""

    press: Literal["pause", "unpause", "reset"]


class Replay(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What comes first."""

    replay: Annotated[int, msgspec.Meta(ge=0, description="So many bytes (1 MiB at most) of what it wrote before.")] = 0


class Machines:
    """The handlers, around one agent's view. Each application has consoles of its own."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._consoles: dict[str, ConsoleUse] = {}

    # Wherever it runs.

    @route("GET", "/v1/workloads/{name}/screenshot", media=PNG, problems=(404, 409))
    async def screenshot(self, request: Request) -> Response:
        """What a machine's display shows now, as PNG."""
        name = request.path_params["name"]
        host = self._host_of(name, "display")
        if host == self.view.host:
            return await self._screenshot(name)
        path = f"{_path(host, name)}/screenshot"
        return await relaying.whole(self.view, host, "GET", path, most_bytes=MOST_PICTURE_BYTES, within_s=PICTURE_S)

    @route(
        "GET", "/v1/workloads/{name}/console", media=RAW, query=Replay, problems=(404, 409), streams=True, headers=TOLD
    )
    async def console(self, request: Request) -> Response:
        """What a machine's console writes, ?replay=BYTES of what it wrote before first, until the machine is gone."""
        name, replay = request.path_params["name"], _replay(request)
        host = self._host_of(name, "console")
        if host == self.view.host:
            return await self._console(name, replay)
        return await relaying.stream(
            self.view, host, f"{_path(host, name)}/console?replay={replay}", kind=RAW,
            headers=(SESSION_HEADER, HOST_HEADER), still=lambda: self._placed_on(name) == host,
        )  # fmt: skip

    @route(
        "POST",
        "/v1/workloads/{name}/console/{session}",
        answers.Taken,
        body=bytes,
        acts=True,
        takes=RAW,
        problems=(404,),
    )
    async def typed(self, request: Request) -> Response:
        """What was typed at a console: the body, as it is."""
        name, session = request.path_params["name"], request.path_params["session"]
        keys = await _keys(request)
        host = session.partition(".")[0]
        if host == self.view.host:
            return await self._typed(name, session, keys)
        if host not in self.view.mirror.hosts or name not in self.view.mirror.workloads:
            raise _no_console(name)
        path = f"{_path(host, name)}/console/{quote(session, safe='')}"
        most = relaying.MOST_PROBLEM_BYTES
        return await relaying.whole(self.view, host, "POST", path, keys, most_bytes=most, within_s=TYPED_S)

    @route("POST", "/v1/workloads/{name}/button", answers.Pressed, body=Button, acts=True, problems=(404,))
    async def button(self, request: Request) -> Response:
        """Press one of a machine's buttons."""
        name, pressed = request.path_params["name"], await body(request)
        decoded(pressed, Button)
        host = self._host_of(name, "buttons")
        if host == self.view.host:
            return await self._press(name, pressed)
        most = relaying.MOST_PROBLEM_BYTES
        path = f"{_path(host, name)}/button"
        return await relaying.whole(self.view, host, "POST", path, pressed, most_bytes=most, within_s=TYPED_S)

    def _placed_on(self, name: str) -> str | None:
        placed = self.view.mirror.placements.get(name)
        return placed.record.host if placed is not None else None

    def _host_of(self, name: str, what: str) -> str:
        """The host where a machine runs. Raises NotFound, UsageInvalid or NotRunning."""
        wanted = self.view.mirror.workloads.get(name)
        if wanted is None:
            raise NotFound(f"There is no workload {name[:80]}.", remedy="see `outlive ps`")
        if wanted.record.workload.machine is None:
            raise UsageInvalid(f"{name} is a service, and has no {what}.", remedy=f"see `outlive logs {name}`")
        host = self._placed_on(name)
        if host is None:
            placed = self.view.mirror.placements.get(name)
            reason = placed.record.reason if placed is not None else "it has not been placed yet"
            if wanted.record.desired is not rec.Desired.RUNNING:
                reason = f"it is wanted {wanted.record.desired}"
            raise _not_running(name, reason)
        return host

    # This host's own part.

    @route("GET", "/v1/hosts/{host}/boards", Boards, problems=(404,), to_peers=True)
    async def boards(self, request: Request) -> Response:
        """The newest version of each board that this host makes."""
        self._check_host(request)
        return Encoded(own_boards(self.view))

    @route("GET", "/v1/hosts/{host}/machines/{workload}", dict[str, Any], problems=(404,), to_peers=True)
    async def told(self, request: Request) -> Response:
        """How a machine stands on this host: its role, state, phase, pairing and progress."""
        name = self._own(request)
        told = self.view.local.told(name)
        if told is None:
            raise NotFound(f"Nothing of {name[:80]} is on {self.view.host}.", remedy="see `outlive ps`")
        return Encoded(told)

    @route("GET", "/v1/hosts/{host}/machines/{workload}/screenshot", media=PNG, problems=(404, 409), to_peers=True)
    async def own_screenshot(self, request: Request) -> Response:
        """The picture of a machine that runs here."""
        return await self._screenshot(self._own(request))

    @route("GET", "/v1/hosts/{host}/machines/{workload}/console", media=RAW, query=Replay, problems=(404, 409),
           to_peers=True, streams=True, headers=TOLD)  # fmt: skip
    async def own_console(self, request: Request) -> Response:
        """The console of a machine that runs here."""
        return await self._console(self._own(request), _replay(request))

    @route("POST", "/v1/hosts/{host}/machines/{workload}/console/{session}", answers.Taken, body=bytes, takes=RAW,
           acts=True, problems=(404,), to_peers=True)  # fmt: skip
    async def own_typed(self, request: Request) -> Response:
        """What was typed at the console of a machine that runs here."""
        name = self._own(request)
        return await self._typed(name, request.path_params["session"], await _keys(request))

    @route(
        "POST",
        "/v1/hosts/{host}/machines/{workload}/button",
        answers.Pressed,
        body=Button,
        acts=True,
        problems=(404,),
        to_peers=True,
    )
    async def own_button(self, request: Request) -> Response:
        """Press a button of a machine that runs here."""
        return await self._press(self._own(request), await body(request))

    def _own(self, request: Request) -> str:
        self._check_host(request)
        name: str = request.path_params["workload"]
        return name

    def _check_host(self, request: Request) -> None:
        host = request.path_params["host"]
        if host != self.view.host:
            raise NotFound(f"This is {self.view.host}, not {host[:80]}.")

    async def _screenshot(self, name: str) -> Response:
        picture = await self.view.local.screenshot(name)
        if picture is None:
            raise _not_running(name, f"nothing of it runs on {self.view.host} now")
        return Response(picture, media_type=PNG)

    async def _press(self, name: str, pressed: bytes) -> Response:
        button = decoded(pressed, Button).press
        if not await self.view.local.press(name, button):
            raise _not_running(name, f"nothing of it runs on {self.view.host} now")
        self.view.record(f"guest.asked_to_{button}", workload=name, host=self.view.host)
        return Encoded({"workload": name, "host": self.view.host, "pressed": button})

    async def _console(self, name: str, replay: int) -> Response:
        if len(self._consoles) >= MOST_SESSIONS:
            raise UsageInvalid(
                f"Too many consoles are used on {self.view.host}.", cause=f"{MOST_SESSIONS} at once", remedy="end one"
            )
        use = await self.view.local.console(name, replay)
        if use is None:
            raise _not_running(name, f"nothing of it runs on {self.view.host} now")
        session = f"{self.view.host}.{secrets.token_hex(16)}"
        self._consoles[f"{name}/{session}"] = use

        async def close() -> None:
            del self._consoles[f"{name}/{session}"]
            await use.close()

        headers = {SESSION_HEADER: session, HOST_HEADER: self.view.host}
        return relaying.Piecewise(_written(use), close, headers, RAW)

    async def _typed(self, name: str, session: str, keys: bytes) -> Response:
        use = self._consoles.get(f"{name}/{session}")
        if use is None:
            raise _no_console(name)
        await use.type(keys)
        return Encoded({"taken": len(keys)})


async def _written(use: ConsoleUse) -> AsyncIterator[bytes]:
    while piece := await use.read():
        yield piece


async def _keys(request: Request) -> bytes:
    keys = await body(request)
    if len(keys) > MOST_TYPED_BYTES:
        raise UsageInvalid("That is too much to type at once.", cause=f"more than {MOST_TYPED_BYTES} bytes")
    return keys


def _replay(request: Request) -> int:
    return min(MOST_REPLAY_BYTES, query(request, Replay).replay)


def _path(host: str, name: str) -> str:
    return f"/v1/hosts/{quote(host, safe='')}/machines/{quote(name, safe='')}"


def _not_running(name: str, cause: str) -> NotRunning:
    return NotRunning(f"{name} does not run.", cause=cause, remedy=f"see `outlive ps` and `outlive why {name}`")


def _no_console(name: str) -> NotFound:
    return NotFound(f"There is no such use of the console of {name[:80]}.", remedy="connect to it again")
