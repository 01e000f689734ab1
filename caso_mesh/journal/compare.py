"""What a server must do about its journal once it knows how far the administrator's copy is. Pure.

A server's disk may be put back to an old state (a restored image). It then writes other facts under numbers the
administrator already knows. That shows only in its newest incarnation: older ones are never written again. So the
newest one decides whether a new incarnation must begin, and in older ones a copy that is ahead is simply complete.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec import Struct

from caso_mesh.journal.record import Head


class Send(Struct, frozen=True):
    """The records of ``incarnation`` beyond ``after`` are to be sent."""

    incarnation: str
    after: int


class RolledBack(Struct, frozen=True):
    """This server's disk was put back: the administrator holds what it no longer has.

    ``head`` is its newest incarnation here, ``cursor`` the administrator's in the same one, ``unknown`` what the
    administrator has of incarnations this server knows nothing of. ``common_at_most``: both may agree up to that
    number (see ``find_fork``) and no further.
    """

    head: Head
    cursor: Head
    unknown: tuple[Head, ...]
    common_at_most: int


class Plan(Struct, frozen=True):
    """``pruned``: records that the administrator lacks up to there and that are not here any more: another voter has them,
    or they are lost. Nothing of those incarnations is sent before. Send these, in this order. With ``rolled_back`` first begin a new incarnation (``Journal.begin_incarnation`` with
    ``moving`` the records beyond the fork), raise an alert, and plan again; nothing of the newest incarnation is in
    ``send`` then."""

    send: tuple[Send, ...]
    rolled_back: RolledBack | None = None
    pruned: tuple[Head, ...] = ()


def plan(
    cursors: Sequence[Head],
    heads: Sequence[Head],
    hash_at: Callable[[str, int], bytes | None],
    floors: Mapping[str, int] | None = None,
    gaps: Sequence[tuple[str, int, int]] = (),
) -> Plan:
    """Compare the administrator's ``cursors`` for this server with its own ``heads``; both oldest first.

    ``hash_at(incarnation, seq)`` is the own journal's hash there (at 0 the first one), ``None`` if it has no such
    record. ``floors``: up to where records of an incarnation were pruned here. ``gaps`` (incarnation, first, last): what
    was found damaged and left out; whoever has come there goes on behind it, as behind what was pruned.
    """
    floors = floors or {}
    pruned: list[Head] = []
    known = {head.incarnation for head in heads}
    at = {cursor.incarnation: cursor for cursor in cursors}
    send: list[Send] = []
    for head in heads:
        cursor = at.get(head.incarnation)
        newest = head.incarnation == heads[-1].incarnation
        if newest and cursor is not None:
            behind = cursors[cursors.index(cursor) + 1 :]
            unknown = tuple(other for other in behind if other.incarnation not in known)
            mine = hash_at(head.incarnation, cursor.seq)
            # of what was pruned long ago not even the hash is here
            agrees = mine == cursor.hash or (mine is None and cursor.seq < floors.get(head.incarnation, 0))
            agrees = agrees or (mine is None and _gap_behind(gaps, head.incarnation, cursor.seq - 1) is not None)
            if unknown or not agrees:
                common = cursor.seq if agrees else min(head.seq, cursor.seq)
                return Plan(tuple(send), RolledBack(head, cursor, unknown, common))
        after = cursor.seq if cursor is not None else 0
        floor = floors.get(head.incarnation, 0)
        if after < floor:
            at_floor = hash_at(head.incarnation, floor)
            assert at_floor is not None
            pruned.append(Head(head.incarnation, floor, at_floor))
        elif (gap := _gap_behind(gaps, head.incarnation, after)) is not None:
            at_end = hash_at(head.incarnation, gap)
            if at_end is not None:
                pruned.append(Head(head.incarnation, gap, at_end))
        elif after < head.seq and (cursor is None or hash_at(head.incarnation, after) == cursor.hash):
            send.append(Send(head.incarnation, after))
    return Plan(tuple(send), pruned=tuple(pruned))


def _gap_behind(gaps: Sequence[tuple[str, int, int]], incarnation: str, after: int) -> int | None:
    """The end of the gap in which the record behind ``after`` lies, if it lies in one."""
    return next((upto for of, first, upto in gaps if of == incarnation and first <= after + 1 <= upto), None)


async def find_fork(
    common_at_most: int,
    ours: Callable[[int], Awaitable[bytes | None]],
    theirs: Callable[[int], Awaitable[bytes | None]],
) -> int:
    """The highest number up to which two copies of an incarnation are equal, 0 if they share nothing.

    ``ours`` and ``theirs`` give the hash at a number. Since each hash covers all before it, halving finds the place:
    about log2(``common_at_most``) questions. Raises what they raise.
    """
    low, high = 0, common_at_most
    while low < high:
        middle = (low + high + 1) // 2
        mine = await ours(middle)
        if mine is not None and mine == await theirs(middle):
            low = middle
        else:
            high = middle - 1
    return low
