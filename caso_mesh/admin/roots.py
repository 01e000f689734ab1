"""What was selected for a set, in listings of it: the roots themselves, and the folders above them, which the set does not have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

from caso_mesh.catalog.segment import CatalogEntry
from caso_mesh.model.entries import path_key

#: A page of what lies in a folder, behind a path: ``(folder, after, limit)`` to its entries, and whether there are more.
Folder = Callable[[bytes, bytes | None, int], Awaitable[tuple[list[CatalogEntry], bool]]]

_PAGE = 10_000


def lies_above(roots: Sequence[bytes], entry: CatalogEntry) -> bool:
    """Whether a folder leads to roots and lies in none: what a catalog says of it beyond its name is made up."""
    below = entry.path + b"/" if entry.path else b""
    leads = any(root.startswith(below) and root != entry.path for root in roots)
    return leads and not any(_is_within(root, entry.path) for root in roots)


def outermost(roots: Sequence[bytes]) -> list[bytes]:
    """The roots that lie in no other, in order of paths."""
    found: list[bytes] = []
    for root in sorted({*roots}, key=path_key):
        if not found or not _is_within(found[-1], root):
            found.append(root)
    return found


async def listed_roots(
    roots: Sequence[bytes], folder: Folder, after: bytes | None, limit: int
) -> tuple[list[CatalogEntry], bool]:
    """The entries of the outermost roots behind ``after``, at most ``limit``, and whether there are more. A root that the set
    does not have is passed by. Raises what ``folder`` raises."""
    behind = [root for root in outermost(roots) if after is None or path_key(root) > path_key(after.strip(b"/"))]
    chosen = [*islice(behind, limit)]
    found: dict[bytes, CatalogEntry] = {}
    for parent in dict.fromkeys(root.rpartition(b"/")[0] for root in chosen):
        # above the roots a folder has nothing but them and what leads to them
        place: bytes | None = None
        more = True
        while more:
            page, more = await folder(parent, place, _PAGE)
            found.update((each.path, each) for each in page)
            place, more = (page[-1].path, more) if page else (None, False)
    return [found[root] for root in chosen if root in found], len(behind) > limit


def _is_within(root: bytes, path: bytes) -> bool:
    return path == root or not root or path.startswith(root + b"/")
