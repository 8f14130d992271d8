"""A receiver accepts each message once, never an old one, and forgets nobody it should remember."""

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from outlive.cluster.heartbeat import Flags, Heartbeat
from outlive.wire.datagram import Message, ProbeAnswer, pack
from outlive.wire.receiver import FORGOTTEN_S, WINDOW, Receiver
from outlive.wire.record import Reason, Refused
from outlive.wire.seal import Seal
from outlive.wire.senders import MOST_SENDERS

SEAL = Seal("0123456789abcdef", b"k" * 32)


def heartbeat_of(sequence: int, host: str = "a") -> bytes:
    return pack(Heartbeat(SEAL.cluster, host, "ab" * 16, sequence, Flags.NONE, 0.0, 0, b"tabledig", ()), SEAL)


def answer_of(sequence: int, host: str = "a") -> bytes:
    return pack(ProbeAnswer(SEAL.cluster, host, "ab" * 16, sequence, 1, "me"), SEAL)


class AgainstModel(RuleBasedStateMachine):
    """The model remembers everything that was accepted; the receiver must decide as if it did, too."""

    def __init__(self) -> None:
        super().__init__()
        self.receiver = Receiver(SEAL, "me")
        self.accepted: set[int] = set()
        self.heartbeats: set[int] = {0}
        self.floor = 0
        self.announced = 0

    @rule(ahead=st.integers(-2 * WINDOW, 2 * WINDOW), beats=st.booleans())
    def a_message_arrives(self, ahead: int, beats: bool) -> None:
        highest = max(self.accepted, default=0)
        sequence = max(highest + ahead, 1)
        taken = (
            sequence > self.floor
            and sequence not in self.accepted
            and sequence > highest - WINDOW
            and (not beats or sequence > max(self.heartbeats))
        )
        datagram = heartbeat_of(sequence) if beats else answer_of(sequence)
        answer = self.receiver.accept(datagram, 0.0)
        assert taken is not isinstance(answer, Refused), (sequence, answer)
        if taken:
            self.accepted.add(sequence)
            if beats:
                self.heartbeats.add(sequence)

    @rule(ahead=st.integers(-WINDOW, WINDOW))
    def the_store_tells_a_sequence(self, ahead: int) -> None:
        sequence = max(max(self.accepted, default=0) + ahead, 1)
        self.receiver.raise_floor("a", sequence)
        if not self.accepted:
            self.floor = self.announced = max(self.floor, sequence)
        elif sequence > self.announced:
            self.floor, self.announced = self.announced, sequence


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=60, stateful_step_count=60)


def test_a_replayed_heartbeat_is_old_news(seal: Seal) -> None:
    receiver = Receiver(seal, "me")
    assert isinstance(receiver.accept(heartbeat_of(5), 0.0), Heartbeat)
    assert _reason(receiver.accept(heartbeat_of(5), 0.0)) is Reason.REPLAYED
    assert _reason(receiver.accept(heartbeat_of(4), 0.0)) is Reason.OLD


def test_a_probe_answer_may_be_overtaken_by_a_heartbeat_once(seal: Seal) -> None:
    receiver = Receiver(seal, "me")
    receiver.accept(heartbeat_of(5), 0.0)
    assert isinstance(receiver.accept(answer_of(4), 0.0), ProbeAnswer)
    assert _reason(receiver.accept(answer_of(4), 0.0)) is Reason.REPLAYED


def test_a_receiver_that_just_started_refuses_what_the_claim_has_passed(seal: Seal) -> None:
    receiver = Receiver(seal, "me")
    receiver.raise_floor("a", 100)
    assert _reason(receiver.accept(heartbeat_of(100), 0.0)) is Reason.OLD
    assert isinstance(receiver.accept(heartbeat_of(101), 0.0), Heartbeat)


def test_a_store_quicker_than_the_network_outruns_no_heartbeat(seal: Seal) -> None:
    receiver = Receiver(seal, "me")
    receiver.accept(heartbeat_of(100), 0.0)
    receiver.raise_floor("a", 101)
    assert isinstance(receiver.accept(heartbeat_of(101), 0.0), Heartbeat)
    receiver.raise_floor("a", 104)
    receiver.raise_floor("a", 107)
    assert _reason(receiver.accept(heartbeat_of(104), 0.0)) is Reason.OLD


def test_senders_have_sequences_of_their_own(seal: Seal) -> None:
    receiver = Receiver(seal, "me")
    receiver.accept(heartbeat_of(1000, "a"), 0.0)
    assert isinstance(receiver.accept(heartbeat_of(1, "b"), 0.0), Heartbeat)


def test_an_echo_of_its_own_messages_is_refused(seal: Seal) -> None:
    assert _reason(Receiver(seal, "a").accept(heartbeat_of(1, "a"), 0.0)) is Reason.OWN


def test_a_refused_message_leaves_no_trace(seal: Seal, wrong_key: Seal) -> None:
    receiver = Receiver(seal, "me")
    forged = Heartbeat(seal.cluster, "a", "ab" * 16, 2**62, Flags.NONE, 0.0, 0, b"tabledig", ())
    assert _reason(receiver.accept(pack(forged, wrong_key), 0.0)) is Reason.WRONG_TAG
    assert isinstance(receiver.accept(heartbeat_of(1), 0.0), Heartbeat)


def test_memory_of_senders_is_bounded_and_kept_for_those_heard_lately(seal: Seal) -> None:
    receiver = Receiver(seal, "me")
    for number in range(MOST_SENDERS):
        receiver.accept(heartbeat_of(9, f"h{number}"), number / MOST_SENDERS)
    now = 1.0
    assert _reason(receiver.accept(heartbeat_of(9, "more"), now)) is Reason.TOO_MANY_SENDERS
    assert isinstance(receiver.accept(heartbeat_of(9, "more"), FORGOTTEN_S + 1), Heartbeat)
    assert _reason(receiver.accept(heartbeat_of(9, "h1"), now)) is Reason.REPLAYED


def test_a_host_that_left_makes_room(seal: Seal, heartbeat: Callable[..., Heartbeat]) -> None:
    receiver = Receiver(seal, "me")
    receiver.accept(pack(heartbeat(9), seal), 0.0)
    receiver.forget("a")
    assert isinstance(receiver.accept(pack(heartbeat(1), seal), 0.0), Heartbeat)


def _reason(answer: Message | Refused) -> Reason:
    assert isinstance(answer, Refused), answer
    return answer.reason
