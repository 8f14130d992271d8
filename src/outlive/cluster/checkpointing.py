"""Checkpoints that operators ask for, by the host that runs the machine: begun once, told when they ended.

The leader begins such an operation and says at which generation; the host that has that reign makes the checkpoint and
closes the operation. Checkpoints by policy need no decision: the machine's own communication manager makes them.
"""

from dataclasses import replace

from . import records as rec
from .commands import Act, TakeCheckpoint
from .events import CheckpointEnded
from .node_state import CheckpointCourse, Phase, Turn
from .transaction import Put, Transaction, unchanged


def follow(turn: Turn) -> None:
    """Begin what is asked for, and close what has ended."""
    operations = turn.state.mirror.operations
    for name in sorted(turn.state.checkpoints):
        entry = operations.get(name)
        if entry is None or entry.record.state is not rec.OperationState.RUNNING:
            turn.set(checkpoints=turn.state.checkpoints.delete(name))
        elif turn.state.at - turn.state.checkpoints[name].asked_at >= turn.state.timing.transact_s:
            _close(turn, name)
    for name, entry in sorted(operations.items()):
        asked = entry.record
        if asked.kind is not rec.OperationKind.CHECKPOINT or asked.state is not rec.OperationState.RUNNING:
            continue
        reign = turn.state.reigns.get(asked.workload)
        mine = reign is not None and reign.generation == asked.generation and reign.phase is Phase.ACTIVE
        if mine and name not in turn.state.checkpoints:
            turn.set(checkpoints=turn.state.checkpoints.set(name, CheckpointCourse()))
            checkpoint = asked.checkpoint or name
            turn.do(TakeCheckpoint(asked.workload, asked.generation, name, checkpoint, asked.because))


def on_ended(turn: Turn, event: CheckpointEnded) -> None:
    """It is whole, or could not be made: the operation is over."""
    known, entry = turn.state.checkpoints.get(event.operation), turn.state.mirror.operations.get(event.operation)
    if known is None or known.state is not None or entry is None:
        return
    state = rec.OperationState.DONE if event.whole else rec.OperationState.FAILED
    about = {"workload": event.workload, "generation": event.generation, "text": event.reason}
    cause = turn.note(f"checkpoint.{state}", because=entry.record.because, **about)
    ended = CheckpointCourse(state, event.reason, cause)
    turn.set(checkpoints=turn.state.checkpoints.set(event.operation, ended))
    _close(turn, event.operation)


def _close(turn: Turn, operation: str) -> None:
    entry, ended = turn.state.mirror.operations[operation], turn.state.checkpoints[operation]
    if ended.state is None:
        return
    key = rec.OPERATIONS + operation
    record = replace(entry.record, state=ended.state, reason=ended.reason, because=ended.because)
    closing = Transaction((unchanged(key, entry.mod_revision),), (Put(key, rec.encode(record)),))
    turn.set(checkpoints=turn.state.checkpoints.set(operation, replace(ended, asked_at=turn.state.at)))
    turn.transact(Act.CHECKPOINT, operation, closing, because=ended.because)
