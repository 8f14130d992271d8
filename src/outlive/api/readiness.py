"""Whether this host can act for workloads now, and every reason why not, for `/readyz`."""

from outlive.errors import ClusterUnreachable

from .view import View

STANDS_STILL_S = 5.0


class NotReady(ClusterUnreachable):
    """The agent is alive, and this host cannot act for workloads."""

    id = "not-ready"

    def __init__(self, host: str, why: tuple[str, ...]) -> None:
        super().__init__(
            f"{host} cannot act for workloads now.",
            cause="; ".join(why),
            remedy="wait a moment; then see `outlive status`, and `outlive doctor` on this host",
        )


def reasons(view: View) -> tuple[str, ...]:
    """Why this host cannot act now, each in a few words; () when it can."""
    node, now = view.node, view.now()
    session = node.session
    found = (
        (not view.store_reachable, "the store does not answer"),
        (not session.guarded, "its guard does not answer"),
        (not session.incarnation or now >= session.deadline_at, "it holds no claim"),
        (now - node.at > STANDS_STILL_S, f"it has decided nothing for {now - node.at:.0f} s"),
    )
    return tuple(why for holds, why in found if holds)
