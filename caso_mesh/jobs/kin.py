"""The kin of a worker: all processes of an attempt, as its daemon and the next one know them.

A worker keeps two descriptors open that it never uses, and so does every process that it makes: the writing end of a
pipe, whose end tells its daemon that none of them is left, and a lock, which tells the next daemon the same of all
attempts. Nobody else may have them: a command of this machine would keep an attempt alive as long as it likes.
"""

from __future__ import annotations

_kept: tuple[int, ...] = ()


def keep(descriptors: tuple[int, ...]) -> None:
    """These are what tells of this worker. Said once, in the process of the worker."""
    global _kept
    _kept = descriptors


def kept() -> tuple[int, ...]:
    """What a process that this worker starts by a program of its own must be given; forked ones have it."""
    return _kept
