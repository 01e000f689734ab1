"""Compares two trees by content and all metadata."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import structs

from caso_mesh.model.entries import Entry, EntryType, SourceException, path_key
from caso_mesh.sources.filters import Filters, Note, normal_path
from caso_mesh.sources.reasons import Unreadable
from caso_mesh.sources.walk import Walker
from caso_mesh.sources.walked import Walked

_BLOCK = 1 << 20


def differences(
    a: bytes,
    b: bytes,
    *,
    content: bool = True,
    owner: bool = True,
    times: bool = True,
    flags: bool = True,
    holes: bool = False,
    accessed: bool = False,
    top: bool = True,
    filters: Filters | None = None,
) -> Iterator[str]:
    """One line for each difference between the trees ``a`` and ``b`` (absolute paths), as ``mode of 'x': 644, 600``.

    Compared are names, types, modes, modification times, sizes, content, link targets, device numbers, which names are
    hard links of each other, xattrs (ACLs and capabilities among them), and what the arguments switch. ``top``:
    whether ``a`` and ``b`` themselves are compared. What cannot be read on either side is a difference too.
    """
    troubles: list[str] = []
    buffers = (bytearray(_BLOCK), bytearray(_BLOCK))
    one = _Side(a, filters or Filters(default_excludes=False), troubles)
    two = _Side(b, filters or Filters(default_excludes=False), troubles)
    x, y = one.next(), two.next()
    if not top and x is not None and y is not None:
        x, y = one.next(), two.next()
    while x is not None or y is not None:
        if y is None or (x is not None and path_key(x[0]) < path_key(y[0])):
            assert x is not None
            yield f"missing: {_shown(x[0])}"
            x = one.next()
        elif x is None or path_key(y[0]) < path_key(x[0]):
            yield f"added: {_shown(y[0])}"
            y = two.next()
        else:
            for what, left, right in _entries(x[1].entry, y[1].entry, one, two, owner, times, flags, accessed):
                yield f"{what} of {_shown(x[0])}: {left}, {right}"
            if x[1].entry.type is EntryType.FILE and y[1].entry.type is EntryType.FILE and content:
                yield from _files(x[0], x[1], y[1], buffers, holes=holes)
            x, y = one.next(), two.next()
        yield from troubles
        troubles.clear()
    yield from troubles


class _Side:
    """A walk whose paths are given relative to its root."""

    def __init__(self, root: bytes, filters: Filters, troubles: list[str]) -> None:
        self._root = normal_path(root)[1:]

        def exception(found: SourceException) -> None:
            troubles.append(f"unreadable: {_shown(found.path)}: {found.reason} {found.detail}".rstrip())

        def note(found: Note) -> None:
            troubles.append(f"left out: {_shown(found.path)}: {found.reason}")

        self._walk = iter(Walker([root], filters, on_exception=exception, on_note=note))

    def next(self) -> tuple[bytes, Walked] | None:
        walked = next(self._walk, None)
        return None if walked is None else (self.relative(walked.entry.path), walked)

    def relative(self, path: bytes) -> bytes:
        return path[len(self._root) :].lstrip(b"/")


def _entries(
    x: Entry, y: Entry, one: _Side, two: _Side, owner: bool, times: bool, flags: bool, accessed: bool
) -> Iterator[tuple[str, object, object]]:
    left = structs.replace(x, hardlink=None if x.hardlink is None else one.relative(x.hardlink))
    right = structs.replace(y, hardlink=None if y.hardlink is None else two.relative(y.hardlink))
    return metadata_differences(left, right, owner=owner, times=times, flags=flags, accessed=accessed)


def metadata_differences(
    x: Entry, y: Entry, *, owner: bool = True, times: bool = True, flags: bool = True, accessed: bool = False
) -> Iterator[tuple[str, object, object]]:
    """What is different (``mode``, ``link target`` ...), and both values of it. Hard links are by the paths of their
    first names."""
    if x.type is not y.type:
        yield "type", x.type.value, y.type.value
        return
    if x.mode != y.mode:
        yield "mode", oct(x.mode), oct(y.mode)
    if owner and (x.uid, x.gid) != (y.uid, y.gid):
        yield "owner", f"{x.uid}:{x.gid}", f"{y.uid}:{y.gid}"
    if times and x.modified != y.modified:
        yield "modification time", x.modified, y.modified
    if accessed and x.accessed != y.accessed:
        yield "access time", x.accessed, y.accessed
    if x.size != y.size:
        yield "size", x.size, y.size
    if x.link_target != y.link_target:
        yield "link target", x.link_target, y.link_target
    if x.rdev != y.rdev:
        yield "device numbers", x.rdev, y.rdev
    if x.hardlink != y.hardlink:
        yield "hard link", x.hardlink, y.hardlink
    if flags and x.flags != y.flags:
        yield "flags", hex(x.flags), hex(y.flags)
    before, after = dict(x.xattrs), dict(y.xattrs)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield f"xattr {_shown(name)}", before.get(name), after.get(name)


def _files(path: bytes, x: Walked, y: Walked, buffers: tuple[bytearray, bytearray], *, holes: bool) -> Iterator[str]:
    if x.entry.hardlink is not None and y.entry.hardlink is not None:
        return  # compared under the first name
    try:
        with x.open() as left, y.open() as right:
            if left.size != right.size:
                return
            one, two = left.extents(), right.extents()
            if holes and one != two:
                yield f"holes of {_shown(path)}: {one}, {two}"
            first, second = buffers
            for offset, length in _data(one, two):
                count = left.read_into(memoryview(first)[:length], offset)
                other = right.read_into(memoryview(second)[:length], offset)
                # Slices of bytes: memoryviews would be compared item by item.
                if count != other or first[:length] != second[:length]:
                    yield f"content of {_shown(path)}: differs between bytes {offset} and {offset + length}"
                    return
    except Unreadable as error:
        found = error.exception
        yield f"unreadable: {_shown(found.path)}: {found.reason} {found.detail}".rstrip()


def _data(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """(offset, length), of at most one block, of all that is data on either side."""
    at = 0
    for start, length in sorted(one + two):
        end = start + length
        at = max(at, start)
        while at < end:
            step = min(_BLOCK, end - at)
            yield at, step
            at += step


def _shown(path: bytes) -> str:
    return repr(path.decode("utf-8", "backslashreplace"))
