"""What was selected for a set, listed without a path, and what is said of the folders above it."""

from __future__ import annotations

from caso_mesh.admin import present
from caso_mesh.admin.roots import lies_above, listed_roots, outermost
from caso_mesh.catalog.segment import CatalogEntry
from caso_mesh.model.entries import EntryType, path_key

#: A set of these roots has those folders; what lies above its roots is made up by the catalog.
ROOTS = (b"etc/hosts", b"home/ann", b"home/ann/deep", b"srv/a", b"srv/b", b"srv/gone", b"srv-old")
HAS = (b"etc/hosts", b"home/ann", b"home/ann/deep", b"home/ann/x", b"srv/a", b"srv/a/file", b"srv/b", b"srv-old")


class Folders:
    """Pages of at most two entries, as a catalog gives them."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    async def __call__(self, path: bytes, after: bytes | None, limit: int) -> tuple[list[CatalogEntry], bool]:
        self.asked.append(path)
        above = {
            each[: each.find(b"/", len(path) + 1)] for each in HAS if each.count(b"/") > path.count(b"/") + bool(path)
        }
        there = {*HAS, *(each for each in above if each)}
        below = sorted((each for each in there if each.rpartition(b"/")[0] == path), key=path_key)
        behind = [each for each in below if after is None or path_key(each) > path_key(after)]
        return [CatalogEntry(each, EntryType.DIRECTORY) for each in behind[:2]], len(behind) > 2


async def test_the_roots_that_lie_in_no_other_are_listed_in_order_and_one_that_the_set_lacks_is_passed_by() -> None:
    found, more = await listed_roots(ROOTS, Folders(), None, 100)
    assert [entry.path for entry in found] == [b"etc/hosts", b"home/ann", b"srv/a", b"srv/b", b"srv-old"]
    assert not more
    assert outermost((b"b", b"a/b", b"a", b"a-b")) == [b"a", b"a-b", b"b"]


async def test_roots_are_given_in_pages_and_only_folders_with_roots_of_the_page_are_looked_into() -> None:
    pages: list[bytes] = []
    more, asked = True, []
    while more:
        folders = Folders()
        page, more = await listed_roots(ROOTS, folders, pages[-1] if pages else None, 2)
        pages += [entry.path for entry in page]
        asked.append(set(folders.asked))
    assert pages == [b"etc/hosts", b"home/ann", b"srv/a", b"srv/b", b"srv-old"]
    assert asked == [{b"etc", b"home"}, {b"srv"}, {b"srv", b""}]


def test_a_folder_above_what_was_selected_has_no_time_and_no_mode() -> None:
    """It was listed with the date of 1970, which nobody ever gave it."""

    def entry(path: bytes) -> CatalogEntry:
        return CatalogEntry(path, EntryType.DIRECTORY, mode=0o755)

    above = [
        path
        for path in (b"home", b"srv", b"srv/a", b"home/ann", b"home/ann/deep", b"sr")
        if lies_above(ROOTS, entry(path))
    ]
    assert above == [b"home", b"srv"]
    assert not lies_above((b"",), entry(b"srv"))
    view = present.entry_view(entry(b"home"), implied=True)
    assert (view.path, view.mtime, view.mtime_ns, view.mode) == ("/home", None, None, None)
    assert present.entry_view(entry(b"srv/a")).mode == "0755"
