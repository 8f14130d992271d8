"""One connection to one agent, over its Unix socket.

Requests are JSON over HTTP by the standard library's client, which costs a command little to import. A problem object
comes back as the same error that the agent raised: its id, sentence, cause, remedy and exit code.

Every wish carries a key of its own, by which the cluster does it once. So a wish whose answer was lost, or that the
store could not tell the end of, is simply asked for again, and of any agent. Once a try may have been done, no later
refusal is told as if nothing had been: what is told then is that nobody knows, and the key to ask again with.
"""

import http.client
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

from outlive.errors import ClusterUnreachable, OutliveError, UsageInvalid

DEFAULT_SOCKET = "/run/outlive/api.sock"
ENVIRONMENT = "OUTLIVE_SOCKET"
CONNECT_S = 3.0
REQUEST_S = 40.0
AGAIN_S = 20.0
"""How long a wish is repeated whose outcome is not known."""
AGAIN_PAUSE_S = 0.3
UPLOAD_S = 600.0
RAW = "application/octet-stream"
PIECE_BYTES = 64 * 1024

KEY_HEADER = "Idempotency-Key"
KEY_ENVIRONMENT = "OUTLIVE_REQUEST_KEY"
_GIVEN_KEY = re.compile(r"[!-~]{1,190}")
"""What may be given as a key: what an agent takes, less the room for the number of a later wish."""
UNCERTAIN = frozenset({"store.uncertain", "idempotency.begun"})
"""What an agent answers that cannot say whether a wish was done, or does not know yet."""


class Answered(OutliveError):
    """What the agent answered, as it said it."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(
            str(problem.get("title", "The agent refused.")),
            cause=str(problem.get("detail", "")),
            remedy=str(problem.get("remedy", "")),
            id=str(problem.get("id", "failed")),
        )
        self.told = problem
        code = problem.get("exit_code")
        self.exit_code = code if isinstance(code, int) else 1  # type: ignore[misc]

    def problem(self) -> dict[str, str | int]:
        """The problem as the agent sent it."""
        return self.told


def find_socket(given: str | None = None) -> str:
    """The agent's socket: as given, or by OUTLIVE_SOCKET, or where an installed agent has it."""
    return given or os.environ.get(ENVIRONMENT) or DEFAULT_SOCKET


class _NotSent(ClusterUnreachable):
    """Nobody could be asked, so surely nothing was done."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        # Kept beside `sock`, which the standard library forgets once an answer closes the connection.
        self.connected = self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_S)
        self.sock.connect(self._path)
        self.sock.settimeout(self.timeout)


class Streamed:
    """An answer that comes in pieces, each as soon as it is there."""

    def __init__(
        self,
        response: http.client.HTTPResponse,
        connected: socket.socket,
        unreachable: Callable[[Exception], ClusterUnreachable],
    ) -> None:
        self._response = response
        self._connected = connected
        self._unreachable = unreachable

    def header(self, name: str) -> str:
        """A header of the answer; '' without."""
        return self._response.headers.get(name, "")

    def abandon(self) -> None:
        """Have a `read` in another thread end, now or when it begins."""
        with suppress(OSError):
            self._connected.shutdown(socket.SHUT_RDWR)

    def read(self) -> bytes:
        """The next piece; b"" at the end. Raises ClusterUnreachable when it breaks off."""
        try:
            return self._response.read1(PIECE_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._unreachable(error) from error


class Client:
    """Requests to one agent, or to others when it is gone; each request opens a connection of its own."""

    def __init__(self, path: str | None = None, others: Iterable[str] = ()) -> None:
        self.path = find_socket(path)
        self._others = [each for each in others if each != self.path]
        self._key = os.environ.get(KEY_ENVIRONMENT) or os.urandom(16).hex()
        self._wishes = count(1)

    def another(self) -> bool:
        """Turn to the next agent that is known, if there is any."""
        if not self._others:
            return False
        self._others.append(self.path)
        self.path = self._others.pop(0)
        return True

    def get(self, path: str) -> Any:
        """GET, decoded. Raises ClusterUnreachable, or what the agent answered."""
        for _ in range(len(self._others)):
            try:
                return self._request("GET", path)
            except ClusterUnreachable:
                self.another()
        return self._request("GET", path)

    def pages(self, path: str, word: str) -> "Iterator[Any]":
        """Everything in a list, page after page. word: the member of each answer that has it."""
        joint, cursor = "&" if "?" in path else "?", ""
        while True:
            answer = self.get(f"{path}{joint}cursor={cursor}" if cursor else path)
            yield from answer[word]
            cursor = answer.get("next") or ""
            if not cursor:
                return

    def put(self, path: str, body: bytes | dict[str, Any], if_revision: int | None = None) -> Any:
        """PUT a document, decoded answer. if_revision: only if what it is about is still at that revision."""
        return self._wish("PUT", path, body, if_revision)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """POST a document, decoded answer."""
        return self._wish("POST", path, body)

    def delete(self, path: str, if_revision: int | None = None) -> Any:
        """DELETE, decoded answer. if_revision: as for `put`."""
        return self._wish("DELETE", path, None, if_revision)

    def post_bytes(self, path: str, content: bytes) -> Any:
        """POST bytes as they are, decoded answer. They go without a key: typed keys are many, and lost ones few."""
        return self._request("POST", path, content)

    def upload(self, path: str, pieces: Iterable[bytes]) -> Any:
        """POST bytes as they come, decoded answer. Raises ClusterUnreachable, or what the agent answered."""
        try:
            return self._uploaded(path, pieces)
        except (ClusterUnreachable, Answered) as error:
            if _is_sure(error):
                raise
            raise _unknown(error, "send it again: what is there already is not changed") from error

    def _uploaded(self, path: str, pieces: Iterable[bytes]) -> Any:
        connection = _UnixConnection(self.path, UPLOAD_S)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise self._unreachable(error, _NotSent) from error
        try:
            # Who refuses what comes may hang up before all of it is sent; the answer is there all the same.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", path, iter(pieces), {"Content-Type": RAW}, encode_chunked=True)
            response = connection.getresponse()
        except BaseException as error:  # what reads the pieces may fail too, or be interrupted
            connection.close()
            if isinstance(error, OSError | http.client.HTTPException):
                raise self._unreachable(error) from error
            raise
        return self._decoded(connection, response)

    def content(self, path: str, most_bytes: int) -> bytes:
        """GET an answer that is no JSON. Raises ClusterUnreachable also when it is larger than that, or breaks off."""
        with self.stream(path, REQUEST_S) as streamed:
            found = bytearray()
            while piece := streamed.read():
                found += piece
                if len(found) > most_bytes:
                    raise self._unreachable(ValueError(f"its answer is larger than {most_bytes} bytes"))
            return bytes(found)

    @contextmanager
    def stream(self, path: str, timeout_s: float | None = None) -> "Iterator[Streamed]":
        """GET an answer piece by piece, while the block lasts.

        timeout_s: the longest wait for the next piece; None: for ever.
        """
        connection, response = self._send("GET", path, None, {}, timeout_s)
        try:
            if response.status >= 400:
                raise Answered(_problem(response.read()))
            yield Streamed(response, connection.connected, self._unreachable)
        finally:
            # Another thread may be reading still, and closing would wait for it.
            with suppress(OSError):
                connection.connected.shutdown(socket.SHUT_RDWR)
            response.close()
            connection.close()

    def lines(
        self, path: str, headers: dict[str, str] | None = None, timeout_s: float | None = None
    ) -> Iterator[bytes]:
        """A streamed answer line by line, until the agent or the caller ends it. Raises ClusterUnreachable as `get`.

        timeout_s: the longest wait for the next line; None: for ever.
        """
        connection, response = self._send("GET", path, None, headers or {}, timeout_s)
        try:
            if response.status >= 400:
                raise Answered(_problem(response.read()))
            # Not by its own readline: that takes an answer which broke off for one that is whole.
            rest = b""
            while piece := response.read1(PIECE_BYTES):
                *whole, rest = (rest + piece).split(b"\n")
                yield from (line + b"\n" for line in whole)
            if rest:
                yield rest
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def _wish(self, method: str, path: str, body: bytes | dict[str, Any] | None, if_revision: int | None = None) -> Any:
        """Ask for something until it is known how that ended.

        Raises ClusterUnreachable, what the agent answered, or UsageInvalid for a key that cannot be one.
        """
        headers = {KEY_HEADER: self._next_key()}
        if if_revision is not None:
            headers["If-Match"] = f'"{if_revision}"'
        uncertain, deadline = False, time.monotonic() + AGAIN_S
        while True:
            try:
                return self._request(method, path, body, headers)
            except (ClusterUnreachable, Answered) as error:
                sure = _is_sure(error)
                if not uncertain and sure and isinstance(error, Answered):
                    raise
                uncertain = uncertain or not sure
                refused = isinstance(error, Answered) and error.exit_code != ClusterUnreachable.exit_code and sure
                elsewhere = isinstance(error, ClusterUnreachable) and self.another()
                if refused or time.monotonic() > deadline or not (uncertain or elsewhere):
                    raise _unknown(error, self._again()) if uncertain else error from error
            time.sleep(AGAIN_PAUSE_S)

    def _next_key(self) -> str:
        """The key of the next wish. Raises UsageInvalid where what the environment gives cannot be one."""
        if not _GIVEN_KEY.fullmatch(self._key):
            raise UsageInvalid(
                f"What {KEY_ENVIRONMENT} says is no key, so nothing was asked for.",
                cause="a key is 1 to 190 characters of ASCII without spaces",
                remedy=f"unset {KEY_ENVIRONMENT}, or set it to the key that an earlier command told",
            )
        number = next(self._wishes)
        return self._key if number == 1 else f"{self._key}.{number}"

    def _again(self) -> str:
        """What to do about a wish that may have been done."""
        return (
            f"run the very same command again with {KEY_ENVIRONMENT}={self._key} in its environment: what was done is "
            "not done again then; or look at `outlive ps` and `outlive events`"
        )

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        return self._decoded(*self._send(method, path, body, headers or {}, REQUEST_S))

    def _decoded(self, connection: _UnixConnection, response: http.client.HTTPResponse) -> Any:
        """An answer, whole, and its connection closed. Raises ClusterUnreachable, or what the agent answered."""
        try:
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()
        if response.status >= 400:
            raise Answered(_problem(content))
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self._unreachable(error) from error

    def _send(
        self,
        method: str,
        path: str,
        body: bytes | dict[str, Any] | None,
        headers: dict[str, str],
        timeout_s: float | None,
    ) -> tuple[_UnixConnection, http.client.HTTPResponse]:
        connection = _UnixConnection(self.path, timeout_s)  # type: ignore[arg-type]
        encoded = json.dumps(body).encode() if isinstance(body, dict) else body
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise self._unreachable(error, _NotSent) from error
        try:
            # Who refuses a request by its head may hang up before all of it is sent; the answer is there all the same.
            with suppress(BrokenPipeError):
                connection.request(method, path, encoded, headers)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception, kind: type[ClusterUnreachable] = ClusterUnreachable) -> ClusterUnreachable:
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, PermissionError):
            return kind(f"This user may not talk to the agent at {self.path}.", cause=cause, remedy="run it with sudo")
        return kind(
            f"No agent answers at {self.path}.",
            cause=cause,
            remedy="start one with `outlive up`, name another socket with --socket, "
            "or look at a lab with `outlive lab status`",
        )


def _is_sure(error: OutliveError) -> bool:
    """Whether what was asked for was surely not done by the try that ended so."""
    return isinstance(error, _NotSent) or (isinstance(error, Answered) and error.id not in UNCERTAIN)


def _unknown(error: OutliveError, remedy: str) -> OutliveError:
    """The error of a wish that may have been done. error: of the last try, which may have been refused."""
    told = "no answer came to an earlier try, and the last one was refused: " if _is_sure(error) else ""
    return ClusterUnreachable(
        "It is not known whether that was done: no answer came that says so.",
        cause=f"{told}{error}",
        remedy=remedy,
        id="outcome.unknown",
    )


def _problem(content: bytes) -> dict[str, Any]:
    try:
        problem = json.loads(content)
    except (ValueError, RecursionError):
        problem = {}
    return problem if isinstance(problem, dict) else {}
