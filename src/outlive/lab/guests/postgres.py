"""PostgreSQL in the real guest, asked from a namespace where clients are: queries, pgbench, and whether it is whole.

The programs are the guest's own, run with its own libraries, so that the host needs none. What pgbench's log and the
database say together is judged in `ledger`.
"""

import random
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from .clients import ClientsFailed, GuestSilent
from .debian import POSTGRES_PORT, DebianGuest
from .ledger import LEDGER_SCRIPT, LedgerOutcome, Transaction, judge_ledger, parse_log

CONNECT_S = 30
BEGIN_S = 120.0
CHECK_S = 300.0
_POLL_S = 0.5
_END_S = 60.0
_ABORTED = re.compile(r"client (\d+) aborted")

# Each transaction of pgbench's own adds the same amount in three places and notes it in a fourth.
_BALANCES = """SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches)
 AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(tbalance) FROM pgbench_tellers)
 AND (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)"""
_ROWS = "SELECT client, number FROM ledger WHERE run = {run}"
_BROKEN_PAGES = "SELECT coalesce(sum(checksum_failures), 0) FROM pg_stat_database"


class Postgres:
    """The database of one guest, at its address. namespace: where the client programs run; None: here."""

    def __init__(self, guest: DebianGuest, address: str, *, namespace: str | None = None) -> None:
        self.address = address
        self._client = guest.client
        self._enter = ("nsenter", f"--net=/run/netns/{namespace}", "--") if namespace else ()

    def words(self, program: str, *rest: str) -> tuple[str, ...]:
        """The command line of one of the guest's client programs."""
        (loader,) = self._client.glob("ld-linux*")
        return (*self._enter, str(loader), "--library-path", str(self._client), str(self._client / program), *rest)

    def where(self, silence_s: float) -> str:
        """How to connect. silence_s: after how long without a sign of the guest's kernel a connection is given up."""
        # Probes are for whoever only waits: the other limit begins with something that was sent.
        probe_s = max(1, int(silence_s / 4))
        return (
            f"host={self.address} port={POSTGRES_PORT} user=postgres dbname=bench sslmode=disable gssencmode=disable "
            f"connect_timeout={CONNECT_S} tcp_user_timeout={int(silence_s * 1000)} "
            f"keepalives_idle={probe_s} keepalives_interval={probe_s}"
        )

    def query(self, statement: str, *, timeout_s: float = 60.0) -> list[str]:
        """Return the rows of one statement, columns joined by |. Raises GuestSilent."""
        done = self._run(("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement, self.where(timeout_s)), timeout_s)
        if done.returncode:
            raise GuestSilent(f"PostgreSQL at {self.address} did not answer.", cause=done.stderr.strip())
        return done.stdout.splitlines()

    def until_ready(self, timeout_s: float) -> None:
        """Wait until it answers. Raises GuestSilent after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.query("SELECT 1", timeout_s=10.0)
                return
            except GuestSilent:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)

    def complaints(self) -> list[str]:
        """What is wrong with the database: its pages, indexes and sums. Empty when it is whole."""
        found: list[str] = []
        # --heapallindexed asks of every row whether each index has it; reading all checks every page's checksum.
        at = ("--host", self.address, "--port", str(POSTGRES_PORT), "--username", "postgres")
        checked = self._run(("pg_amcheck", "--heapallindexed", "--parent-check", *at, "bench"), CHECK_S)
        if checked.returncode or checked.stdout.strip():
            found.append(f"pg_amcheck: {(checked.stdout + checked.stderr).strip()}")
        if self.query(_BALANCES, timeout_s=CHECK_S) != ["t"]:
            found.append("the sums of accounts, branches, tellers and history differ")
        broken = self.query(_BROKEN_PAGES)
        if broken != ["0"]:
            found.append(f"pages whose checksum does not hold: {broken[0]}")
        return found

    def rows(self, run: int) -> list[tuple[int, int]]:
        """The ledger's rows of a run: client and number."""
        lines = self.query(_ROWS.format(run=int(run)), timeout_s=CHECK_S)
        return [(int(client), int(number)) for client, number in (line.split("|") for line in lines)]

    def _run(self, words: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        program, *rest = words
        try:
            return subprocess.run(
                self.words(program, *rest),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise GuestSilent(f"`{program}` had no answer from {self.address} within {timeout_s:g} s.") from error


class Bench:
    """One run of pgbench over connections that stay open; leaving its context ends it.

    folder:    a folder of its own, for its script and its log.
    clients:   connections, each with one transaction under way.
    seconds:   for how long.
    mixed:     whether pgbench's own transactions take turns with the ledger's, or the ledger's are all.
    silence_s: how long a connection may be without any sign of the guest before its client gives up.
    """

    def __init__(
        self,
        database: Postgres,
        folder: Path,
        *,
        clients: int = 4,
        seconds: int = 10,
        mixed: bool = True,
        silence_s: float = 60.0,
    ) -> None:
        self.run = random.randrange(1, 2**31)
        self._database, self._folder, self._clients, self._seconds = database, folder, clients, seconds
        folder.mkdir(parents=True, exist_ok=True)
        script = folder / "ledger.sql"
        script.write_text(LEDGER_SCRIPT)
        own = ("-b", "tpcb-like@1") if mixed else ()
        self._said = folder / "said"
        with self._said.open("wb") as output:
            self._process = subprocess.Popen(
                database.words(
                    "pgbench",
                    *("-n", "-c", str(clients), "-j", "1", "-T", str(seconds)),
                    *("--log", f"--log-prefix={folder / 'log'}"),
                    *("-D", f"run={self.run}", "-D", "number=0"),
                    *("-f", f"{script}@1", *own, database.where(silence_s)),
                ),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def __enter__(self) -> "Bench":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:
            self._process.kill()

    def judge(self, *, whole: bool = True) -> LedgerOutcome:
        """Wait for its end and compare what clients were told with what the database has.

        whole: whether the database itself is checked too, which takes seconds.
        Raises ClientsFailed when pgbench does not end or never began, GuestSilent when the database does not answer.
        """
        return judge_ledger(
            self.told(),
            self._database.rows(self.run),
            broken_connections=len(set(_ABORTED.findall(self._said.read_text(errors="replace")))),
            complaints=self._database.complaints() if whole else (),
        )

    def told(self) -> list[Transaction]:
        """Wait for its end; what its clients know to be committed. Raises ClientsFailed, also when that is nothing."""
        try:
            self._process.wait(self._seconds + _END_S)
        except subprocess.TimeoutExpired as error:
            raise ClientsFailed(f"pgbench did not end within {self._seconds + _END_S:g} s.") from error
        found = [each for log in sorted(self._folder.glob("log.*")) for each in parse_log(log.read_text())]
        if not found:
            said = self._said.read_text(errors="replace")
            raise ClientsFailed("pgbench's clients committed nothing.", cause=said.strip()[-1000:])
        return found

    def until_begun(self) -> None:
        """Wait until every client has committed something. Raises ClientsFailed, and GuestSilent."""
        deadline = time.monotonic() + BEGIN_S
        while len({client for client, _ in self._database.rows(self.run)}) < self._clients:
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._said.read_text(errors="replace")
                raise ClientsFailed("Not all of pgbench's clients began.", cause=said.strip()[-1000:])
            time.sleep(_POLL_S)
