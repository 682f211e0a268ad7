"""The two ways in which a part of a reconcile ends early on purpose.

    PartError
    ├── Stalled   the user must act: retrying alone changes nothing
    └── Retry     it will be tried again, after a delay

Anything else that is raised is a bug or a fault of the environment; the work queue retries it with back-off.
They become conditions in one place, `domain.conditions`.
"""

from __future__ import annotations

from tenantry.domain.reasons import Reason


class PartError(Exception):
    """A part could not be brought to its desired state; carries a stable reason and a sentence for people."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Stalled(PartError):  # noqa: N818 - the kstatus term
    """The user must act; the message names the field and the next step.

    delay: seconds after which to look again, where what the user does is nothing that we watch.
    """

    def __init__(self, reason: Reason, message: str, delay: float | None = None) -> None:
        super().__init__(reason, message)
        self.delay = delay


class Retry(PartError):  # noqa: N818 - names what happens next
    """Tried again: after `delay` seconds where that is known, else with the queue's back-off.

    failed: it is a failure all the same, so the queue backs off, and `delay` is the least that it waits.
    """

    def __init__(
        self, reason: Reason, message: str, delay: float | None = None, *, failed: bool | None = None
    ) -> None:
        super().__init__(reason, message)
        self.delay = delay
        self.failed = delay is None if failed is None else failed
