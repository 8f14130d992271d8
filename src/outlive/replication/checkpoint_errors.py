"""What can be wrong with checkpoints, each as an error that says what to do. Nothing here reads a file."""

from outlive.errors import Failed, RefusedForSafety


class CheckpointFailed(Failed):
    """A checkpoint was begun and is not whole; those before it are, and the guest goes on."""

    id = "checkpoint.failed"


class CheckpointDamaged(Failed):
    """What stands in a checkpoint is not what was written there."""

    id = "checkpoint.damaged"


class CheckpointMissing(Failed):
    """No checkpoint of that name, or none that is whole."""

    id = "checkpoint.missing"


class HardwareDiffers(RefusedForSafety):
    """A checkpoint was taken on hardware that this host would not make the same. Nothing was changed."""

    id = "checkpoint.hardware"


class GenerationOld(RefusedForSafety):
    """A later reign has written here, so this one's time is over."""

    id = "checkpoint.generation"


class ScribeSilent(CheckpointFailed):
    """The datastore did not take what was written in time."""

    id = "checkpoint.silent"
