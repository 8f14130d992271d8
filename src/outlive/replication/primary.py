"""The primary: runs the guest, cuts epochs by need, holds what the guest says until the standby knows why.

One thread owns everything here: it takes the agent's commands, cuts, and waits. The feed's threads only let frames go
(`_on_acknowledged`) and say that the standby is lost (`_on_lost`). The invariant: from before the first whole epoch is
cut until an agent that won the store says `alone`, no frame leaves that the standby has not acknowledged, whatever
breaks.
"""

import queue
import select
import threading
from collections import deque
from contextlib import suppress

import structlog

from outlive.errors import Failed
from outlive.replication.comm_config import CommConfig
from outlive.replication.control import (
    OWN_DISK,
    Alone,
    BecameFailed,
    Command,
    HandedOver,
    HandOver,
    Pair,
    Paired,
    PeerLost,
    Progress,
    Refused,
    Seeding,
    Status,
    WentAlone,
)
from outlive.replication.control_server import ControlServer, Wake
from outlive.replication.feed import STAGING_PAGES, STAGINGS, Callbacks, Feed, Step
from outlive.replication.kernels import Staging
from outlive.replication.link import boot_s
from outlive.replication.machine import Cut, Machine, MachineGone, MirrorBroken, StandbyLost
from outlive.replication.pace import Pace
from outlive.replication.ports import Freedom, Ports
from outlive.replication.precopy import Interrupted, PreCopy, SeedProgress

_IDLE_S = 1.0
_TELL_S = 1.0
_SEEDING_TELL_S = 0.25
_NO_ROOM_S = 0.02
_BRAKE_PAGES = STAGING_PAGES * (STAGINGS - 1)
_HOLDING = ("paired", "lost", "handed-over")

_log = structlog.get_logger()


class Primary:
    """One machine's primary, until its process is ended."""

    def __init__(
        self, config: CommConfig, control: "ControlServer", wake: Wake, ports: Ports, machine: Machine, generation: int
    ) -> None:
        assert config.hot is not None
        self._config = config
        self._hot = config.hot
        self._control = control
        self._wake = wake
        self._ports = ports
        self._machine = machine
        self._generation = generation
        self._pairing = config.pairing
        self._phase = "free"
        self._reason = ""
        self._feed: Feed | None = None
        self._output = threading.Lock()
        self._number = 0
        self._first_epoch = 0
        self._acknowledged = 0
        self._pace = Pace(self._hot)
        self._told_at = 0.0
        self._waiting: deque[Command] = deque()

    def status(self) -> Status:
        """Where it stands; from any thread."""
        feed = self._feed
        peer = feed.peer_host if feed else ""
        # Output is held already before the first acknowledgement, but nobody may rely on the standby yet.
        phase = "seeding" if self._phase == "paired" and not self._acknowledged else self._phase
        return Status(phase, self._generation, self._pairing, self._acknowledged, peer_host=peer, reason=self._reason)

    def run(self) -> None:
        """Serve until the process is ended."""
        while True:
            try:
                self._obey()
                self._turn()
            except Failed as error:
                self._fail(error)

    def _turn(self) -> None:
        feed = self._feed
        if feed is not None and feed.lost:
            feed.close()
            self._machine.journal.unfollow()
            self._feed = None
            self._wake.set()
        elif self._phase == "paired" and feed is not None:
            self._paired_turn(feed)
        else:
            self._wake.wait(_IDLE_S)
            if self._phase != "failed":
                self._machine.check()
                self._ports.connect()

    def _paired_turn(self, feed: Feed) -> None:
        now = boot_s()
        if now - self._told_at >= _TELL_S:
            self._tell_progress(feed, now)
        if not feed.room(self._hot.unacknowledged):
            if not self._wake.wait(_NO_ROOM_S):
                self._machine.brake(_BRAKE_PAGES)
            return
        wanted = self._ports.anything_waits or self._machine.journal.grown_large
        wait_s = self._pace.wait_s(now, wanted=wanted)
        if wait_s <= 0:
            self._epoch(feed, waited_for=wanted)
        elif self._pace.may_cut(now):
            select.select([self._wake.fileno(), *self._ports.waiting], [], [], wait_s)
            self._wake.clear()
        else:
            # Nothing may be cut before: only commands are worth waking up for.
            self._wake.wait(min(wait_s, self._pace.earliest_s(now)))

    def _epoch(self, feed: Feed, *, waited_for: bool = False, final: bool = False) -> Cut:
        self._number += 1
        number = self._number
        cut = self._machine.cut(
            number,
            lambda pages: self._staging(feed, number, pages),
            lambda cut: feed.put(
                Step(number, cut.pages, cut.writes, cut.state, self._ports.output(number), final=final)
            ),
            waited_for=waited_for,
            final=final,
        )
        self._pace.cut(boot_s(), cut.pause_s, cut.page_count, cut.busy_share)
        return cut

    def _staging(self, feed: Feed, number: int, pages: list[Staging]) -> Staging:
        # The guest stands while we wait here: a standby that cannot keep up slows it, and nothing piles up.
        while True:
            with suppress(queue.Empty):
                return feed.stagings.get_nowait()
            if pages:
                feed.put_pages(number, pages.copy())
                pages.clear()
            with suppress(queue.Empty):
                return feed.stagings.get(timeout=_NO_ROOM_S)
            if feed.lost:
                raise StandbyLost("The standby was lost while an epoch was cut.")

    def _obey(self) -> None:
        while self._waiting or (command := self._control.command()) is not None:
            if self._waiting:
                command = self._waiting.popleft()
            assert command is not None
            match command:
                case Pair():
                    self._pair(command)
                case Alone():
                    self._go_alone(command)
                case HandOver():
                    self._hand_over()
                case _:
                    self._refuse(command, "a primary does not do that")

    def _pair(self, pair: Pair) -> None:
        if self._phase != "free":
            return self._refuse(pair, f"it is {self._phase}")
        if (pair.generation, pair.pairing) < (self._generation, self._pairing):
            return self._refuse(pair, f"{self._generation}/{self._pairing} is newer")
        self._generation, self._pairing = pair.generation, pair.pairing
        callbacks = Callbacks(
            lambda number, final: self._on_acknowledged(feed, number, final),
            lambda reason, silent_s: self._on_lost(feed, reason, silent_s),
        )
        feed = Feed(self._config, pair, self._ports, callbacks, self._wake)
        try:
            feed.connect()
        except Failed as error:
            feed.close()
            self._control.tell(PeerLost(str(error), 0.0, 0, pair.generation, pair.pairing))
            return None
        self._number = self._first_epoch = self._acknowledged = 0
        self._reason = ""
        self._feed, self._phase = feed, "seeding"
        _log.info("pairing.began", standby=pair.standby_host, generation=pair.generation, pairing=pair.pairing)
        try:
            self._seed(feed)
        except (Interrupted, StandbyLost):
            feed.close("the first copy was broken off")
            self._machine.journal.unfollow()
            self._feed = None
            with self._output:
                if self._phase == "seeding":
                    self._phase = "free"
        return None

    def _seed(self, feed: Feed) -> None:
        prefix = self._machine.prefix()
        known = False
        self._machine.mirror(lambda: self._pause(feed, 0.01))
        known = self._machine.journal.follow(feed.reign.generation, feed.reign.pairing, feed.labels)
        feed.start(prefix)
        copy = PreCopy(self._machine, feed, self._next_number, lambda s: self._pause(feed, s), self._tell_seeding)
        copy.run()
        _log.info("seeding.finished", rounds=copy.rounds, disks="differences" if known else "all")
        with self._output:
            if feed.lost:
                raise Interrupted
            # From here on the standby may come to hold a whole epoch without our knowing: hold first.
            self._ports.hold()
            self._first_epoch = self._number + 1
            self._phase = "paired"
        self._pace = Pace(self._hot)
        self._told_at = boot_s()
        cut = self._epoch(feed)
        _log.info("epoch.first_cut", pages=cut.page_count, stop_ms=_ms(cut.stop_s), copy_ms=_ms(cut.copy_s))

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _pause(self, feed: Feed, within_s: float) -> None:
        if within_s and self._wake.wait(within_s):
            self._wake.clear()
        if feed.lost:
            raise Interrupted
        command = self._control.command()
        if isinstance(command, (Alone, Pair)):
            self._waiting.append(command)
            raise Interrupted
        if command is not None:
            self._refuse(command, "the first copy is under way")

    def _hand_over(self) -> None:
        feed = self._feed
        if self._phase != "paired" or feed is None or feed.lost:
            return self._refuse(HandOver(), f"it is {self._phase}")
        while not feed.room(self._hot.unacknowledged) and not feed.lost:
            self._wake.wait(_NO_ROOM_S)
        self._epoch(feed, final=True)
        with self._output:
            if self._phase == "paired":
                self._phase = "handed-over"
        return None

    def _go_alone(self, alone: Alone) -> None:
        if alone.pairing < self._pairing or (self._phase in _HOLDING and alone.pairing == self._pairing):
            return self._refuse(alone, f"pairing {self._pairing} is not older")
        with self._output:
            feed, self._feed = self._feed, None
            self._phase, self._reason, self._pairing = "free", "", alone.pairing
            released = self._ports.free(Freedom.WON_THE_STORE)
        if feed is not None:
            feed.close("the primary goes on alone")
        self._machine.journal.unfollow()
        self._machine.go_on()
        self._control.tell(WentAlone(alone.pairing, released))
        return None

    def _on_acknowledged(self, feed: Feed, number: int, final: bool) -> None:
        with self._output:
            # Once it was said that the standby is lost, its acknowledgements are no leave to speak any more.
            if self._feed is not feed or feed.lost:
                return
            self._machine.journal.acknowledged(number)
            if not self._first_epoch or number < self._first_epoch:
                return
            self._ports.acknowledged(number)
            self._acknowledged = number
            if number == self._first_epoch:
                self._control.tell(Paired(number, self._generation, self._pairing))
            if final:
                self._phase = "handed-over"
                self._control.tell(HandedOver(number, self._generation, self._pairing))

    def _on_lost(self, feed: Feed, reason: str, silent_s: float) -> None:
        with self._output:
            if self._feed not in (None, feed):
                return  # of a pairing that is over, by a thread that took its time
            if self._phase == "paired" or (self._phase == "handed-over" and self._number != self._acknowledged):
                self._phase = "lost"
            elif self._phase == "seeding":
                self._phase = "free"
            elif self._phase == "handed-over":
                return  # the standby went its way, as was asked of it
            self._reason = reason
        lost = PeerLost(reason, silent_s * 1000, self._acknowledged, self._generation, self._pairing)
        self._control.tell(lost)
        _log.warning("standby.lost", because=reason, epoch=self._acknowledged)

    def _fail(self, error: Failed) -> None:
        if isinstance(error, StandbyLost):
            return None
        if isinstance(error, MirrorBroken):
            return self._lose_mirror(error)
        reason = error.cause if isinstance(error, MachineGone) else str(error)
        _log.error("primary.failed", because=str(error))
        with self._output:
            feed, self._feed = self._feed, None
            self._phase, self._reason = "failed", reason
        if feed is not None:
            feed.close(reason)
        self._machine.journal.unfollow()
        self._control.tell(BecameFailed(reason))
        return None

    def _lose_mirror(self, error: MirrorBroken) -> None:
        _log.error("mirror.broken", because=str(error))
        feed, self._feed = self._feed, None
        if feed is not None:
            self._on_lost(feed, f"{OWN_DISK} {error}", 0.0)
            feed.close("own disk")
        self._machine.journal.unfollow()
        self._machine.unmirror()

    def _tell_seeding(self, progress: SeedProgress) -> None:
        now = boot_s()
        if now - self._told_at >= _SEEDING_TELL_S or progress.done_bytes == progress.total_bytes:
            self._told_at = now
            self._control.tell(Seeding(progress.done_bytes, progress.total_bytes, progress.round))

    def _tell_progress(self, feed: Feed, now: float) -> None:
        self._told_at = now
        told = self._pace.tell()
        self._control.tell(
            Progress(
                epochs=self._number - self._first_epoch + 1,
                pause_ms_median=told.median_ms,
                pause_ms_p99=told.p99_ms,
                dirty_pages=told.pages,
                bytes_sent=feed.bytes_sent,
                held_frames=self._ports.held_frames,
                unacknowledged=feed.unacknowledged,
                lag_ms=feed.lag_s * 1000,
                disk_bytes=self._machine.journal.different_bytes,
            )
        )

    def _refuse(self, command: Command, reason: str) -> None:
        self._control.tell(Refused(type(command).__name__, reason))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
