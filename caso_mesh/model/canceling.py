"""What became of a wish to cancel, as it is told."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class RunCanceled(Struct, frozen=True):
    """``canceling``: something of it is still active and was asked to end. ``already``: before this call."""

    run: str
    state: Literal["canceled", "canceling"]
    already: bool = False


class RunsCanceled(Struct, frozen=True):
    """Of one run, or of all open ones of a job. (An earlier administrator names none.)"""

    runs: tuple[RunCanceled, ...] = ()
