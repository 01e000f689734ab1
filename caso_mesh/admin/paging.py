"""One page of a list."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from caso_mesh.model import outcomes as o
from caso_mesh.model.errors import NotFound
from caso_mesh.model.listing import limited

T = TypeVar("T")


class JobPage:
    """A page of the list of jobs, filled row by row. What belongs to one run is not torn apart, unless it fills a page alone."""

    def __init__(self, limit: int, after: str | None) -> None:
        self._limit = limit
        self._after = after
        self._more = False
        self._views: list[o.JobView] = []

    @property
    def full(self) -> bool:
        """There is no use in adding anything."""
        return self._more

    def left(self, rows: Iterable[T], name: Callable[[T], str]) -> list[T]:
        """Of rows in their order those that lie behind the one that the page begins after."""
        found: list[T] = []
        for row in rows:
            if self._after is None:
                found.append(row)
            elif name(row) == self._after:
                self._after = None
        return found

    def add(self, name: str, views: list[o.JobView]) -> None:
        """What belongs to the next run, or job."""
        if self._after is not None:
            if name == self._after:
                self._after = None
            return
        if self._more or not views:
            return
        if self._views and len(self._views) + len(views) > self._limit:
            self._more = True
            return
        self._views += views

    def answer(self) -> o.JobList:
        """The page. Raises ``NotFound`` if there is no such row as it should begin after."""
        if self._after is not None:
            raise NotFound(kind="run", name=self._after)
        return o.JobList(tuple(self._views), self._more)


class Paged(Protocol):
    """What every request of a list has."""

    @property
    def limit(self) -> int: ...

    @property
    def after(self) -> str | None: ...


def page(rows: Iterable[T], request: Paged, name: Callable[[T], str]) -> tuple[tuple[T, ...], bool]:
    """The rows, which come in the order of their names, behind ``request.after``, as many as were asked for; and whether
    there are more."""
    limit = limited(request.limit)
    found: list[T] = []
    for row in rows:
        if request.after is not None and name(row) <= request.after:
            continue
        if len(found) == limit:
            return tuple(found), True
        found.append(row)
    return tuple(found), False
