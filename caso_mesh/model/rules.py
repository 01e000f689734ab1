"""Error-handling rules: what becomes of a run whose attempt failed."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Then(StrEnum):
    """What a rule does when its retries are used up: hold the job until a person releases it, or let the run fail, so
    that the job waits for its next due time."""

    HOLD = "hold"
    WAIT = "wait"


class ErrorRule(Struct, frozen=True):
    """For failures with one of ``errors`` (codes, or categories of them): try again up to ``retries`` times, ``every_s``
    after each, and ``then``. ``any_time``: also outside the window of the selection list."""

    name: str
    errors: tuple[str, ...]
    retries: int
    every_s: float
    then: Then = Then.WAIT
    any_time: bool = False


class Again(Struct, frozen=True):
    """A failed part is not over: it is tried again, not before an instant, or when its job is released that the rule
    ``held_by`` puts on hold."""

    rule: str
    not_before_ns: int = 0
    any_time: bool = False
    held: bool = False
