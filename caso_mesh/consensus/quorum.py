"""Majorities: what one of them has confirmed, and whether one of them has agreed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

Outcome = Literal["won", "pending", "lost"]


def majority(size: int) -> int:
    """How many of ``size`` voters are more than half of them."""
    return size // 2 + 1


def committed_index(voters: Collection[str], confirmed: Mapping[str, int]) -> int | None:
    """The highest index that a majority has confirmed; ``None``, which is no bound at all, if there are no voters.

    Whoever is not in ``confirmed`` has confirmed nothing.
    """
    if not voters:
        return None
    indexes = sorted((confirmed.get(voter, 0) for voter in voters), reverse=True)
    return indexes[majority(len(indexes)) - 1]


def outcome(voters: Collection[str], votes: Mapping[str, bool]) -> Outcome:
    """Whether a majority of ``voters`` agreed, still may, or cannot any more. Nobody has nothing against it."""
    if not voters:
        return "won"
    needed = majority(len(voters))
    agreed = sum(1 for voter in voters if votes.get(voter) is True)
    silent = sum(1 for voter in voters if voter not in votes)
    if agreed >= needed:
        return "won"
    return "pending" if agreed + silent >= needed else "lost"
