"""What clients saw, and whether one copy of the data could have answered so (linearizability).

The model is a list to which writes append and of which reads return all. The order of the appends is known afterwards,
so that each operation has a version: how long the list was, with its own value, when it took effect. A history is
linearizable if and only if no operation is older than one that had ended before it began.
"""

from __future__ import annotations

from msgspec import Struct


class Operation(Struct):
    """Times are of the simulation; ``ended`` is ``None`` if nobody knows what became of it. ``length`` is what a read
    returned: the number of values."""

    number: int
    kind: str
    began: int
    ended: int | None = None
    length: int | None = None


def not_linearizable(operations: list[Operation], order: list[int]) -> str | None:
    """What is wrong, or ``None``. ``order``: numbers of the writes as they were appended in the end."""
    place = {number: at + 1 for at, number in enumerate(order)}
    if len(place) != len(order):
        return "a write took effect twice"
    moments: list[tuple[int, int, Operation]] = []
    for operation in operations:
        if operation.kind == "write" and operation.ended is not None and operation.number not in place:
            return f"write {operation.number} was acknowledged and is lost"
        version = place.get(operation.number) if operation.kind == "write" else operation.length
        if version is None:
            continue  # a read that was never answered, or a write that never took effect
        moments.append((operation.began, 0, operation))
        if operation.ended is not None:
            moments.append((operation.ended, 1, operation))
    # At the same instant, beginnings come first: such operations overlap.
    moments.sort(key=lambda moment: moment[:2])
    reached = 0
    floors: dict[int, int] = {}
    for _, ending, operation in moments:
        version = place[operation.number] if operation.kind == "write" else operation.length
        assert version is not None
        if ending:
            reached = max(reached, version)
            continue
        floors[operation.number] = reached
        if version < reached or (operation.kind == "write" and version == reached):
            return f"{operation.kind} {operation.number} saw version {version}, after {reached} had been seen"
    return None
