"""Which paths are left out: patterns, default excludes, own state, caches, size.

A pattern is a glob over the whole absolute path: ``*`` is any run of characters, ``/`` included, ``?`` one character,
``[...]`` one of a class (``[!...]`` none of it). A pattern without a slash is matched against the last part as well;
one that begins with neither ``/`` nor ``*`` but has a slash may begin at any folder; one that ends in ``/`` matches
folders only. Bytes that are not UTF-8 count as one character each.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from caso_mesh.model.entries import path_key
from caso_mesh.model.errors import InvalidValue

#: First bytes of the object ``format`` of every vault; a folder with such a file is a vault and is left out.
VAULT_MARKER = b"caso-mesh vault"
#: First bytes of a valid ``CACHEDIR.TAG`` (https://bford.info/cachedir/).
CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
#: Folders that are kept themselves while their contents are left out.
DEFAULT_EMPTIED = (b"/dev", b"/proc", b"/run", b"/sys")
#: Usual places of swap files; the walk leaves out active ones wherever they are.
DEFAULT_SWAP = (b"/swap.img", b"/swapfile", b"/var/swap", b"/var/swapfile", b"/swap/swapfile")


class Note(Struct, frozen=True):
    """Something a person should know that costs nothing of what was asked for: it leaves a run green."""

    path: bytes
    reason: str
    detail: str = ""


class Filters(Struct, frozen=True):
    """What is left out of a backup.

    ``excludes``: patterns, see the module. ``only``: folders, each with patterns of which what lies in it and is no folder
    has to match one. ``larger_than``: files of more bytes are left out. ``exclude_caches``:
    folders with a valid ``CACHEDIR.TAG`` are kept, empty. ``one_file_system``: mounted folders are kept, empty.
    ``own_paths``: absolute paths of this machine's state folder and devices. ``own_identities``: their (device, inode),
    if whoever asks knows them; without they are looked at, and one of them may hang.
    """

    excludes: tuple[str, ...] = ()
    one_file_system: bool = False
    exclude_caches: bool = False
    larger_than: int | None = None
    default_excludes: bool = True
    own_paths: tuple[bytes, ...] = ()
    own_identities: tuple[tuple[int, int], ...] | None = None
    only: tuple[tuple[bytes, tuple[str, ...]], ...] = ()

    def digest(self, roots: Iterable[bytes]) -> bytes:
        """32 bytes over everything a person chose that decides what is read: roots and filters, in any order.

        ``own_paths`` is not in it: where this machine keeps its own state may change, as by adding a device, without
        changing what was asked for.
        """
        hasher = hashlib.blake2b(digest_size=32, person=b"caso-filters-1")
        for part in (
            *(b"root:" + root for root in merged_roots(roots)),
            *(b"exclude:" + os_bytes(pattern) for pattern in sorted(set(self.excludes))),
            *(
                b"only:%d:%s%s" % (len(folder), folder, os_bytes(pattern))
                for folder, patterns in sorted(self.only)
                for pattern in (f"{len(patterns)}", *sorted(patterns))
            ),
            b"one-file-system:%d" % self.one_file_system,
            b"exclude-caches:%d" % self.exclude_caches,
            b"larger-than:%d" % (-1 if self.larger_than is None else self.larger_than),
            b"default-excludes:%d" % self.default_excludes,
        ):
            hasher.update(len(part).to_bytes(8, "big") + part)
        return hasher.digest()


class Matcher:
    """Applies the parts of ``Filters`` that a path alone decides."""

    def __init__(self, filters: Filters, roots: Iterable[bytes]) -> None:
        self._own = frozenset(normal_path(path) for path in filters.own_paths)
        self._own_inside = tuple(path + b"/" for path in self._own)
        asked = [root.rstrip(b"/") for root in merged_roots(roots, nested=True)]
        # A root at or below one of these folders was asked for by name, so that folder counts as any other.
        emptied = DEFAULT_EMPTIED if filters.default_excludes else ()
        self._emptied = frozenset(
            folder for folder in emptied if not any((root + b"/").startswith(folder + b"/") for root in asked)
        )
        self._emptied_inside = tuple(folder + b"/" for folder in self._emptied)
        self._swap = frozenset(DEFAULT_SWAP if filters.default_excludes else ()) - frozenset(asked)
        self._any = _Globs([pattern for pattern in filters.excludes if not pattern.endswith("/")])
        self._folders = _Globs([pattern[:-1] for pattern in filters.excludes if pattern.endswith("/")])
        self._only = [(normal_path(folder), _Globs(patterns)) for folder, patterns in filters.only]
        #: Without patterns, what does not begin with one of ``near`` is not excluded.
        self.patterns = bool(filters.excludes or filters.only)
        self.near = (*self._swap, *self._emptied_inside, *self._own)

    def excluded(self, path: bytes, is_dir: bool) -> bool:
        """Whether the absolute ``path`` is left out by itself. A walk does not enter a folder that is."""
        if path in self._swap and not is_dir:
            return True
        if self._emptied_inside and path.startswith(self._emptied_inside):
            return True
        if self._any or (is_dir and self._folders):
            text = path.decode("utf-8", "surrogateescape")
            if self._any.match(text) or (is_dir and self._folders.match(text)):
                return True
        if self._only and not is_dir and self._not_asked_for(path):
            return True
        return self.own(path)

    def _not_asked_for(self, path: bytes) -> bool:
        """Whether a folder that this path lies in asks for other files alone."""
        text = path.decode("utf-8", "surrogateescape")
        return any(is_below(path, folder) and not globs.match(text) for folder, globs in self._only)

    @property
    def own_paths(self) -> frozenset[bytes]:
        """This machine's own state and devices, by their paths."""
        return self._own

    def own(self, path: bytes) -> bool:
        """Whether the path is this machine's own state or device, or lies in it."""
        return bool(self._own) and (path in self._own or path.startswith(self._own_inside))

    def emptied(self, path: bytes) -> bool:
        """Whether this folder is kept while all it holds is left out."""
        return path in self._emptied


def os_bytes(pattern: str) -> bytes:
    """Bytes of a text that may hold bytes which are not UTF-8 (as surrogates)."""
    return pattern.encode("utf-8", "surrogateescape")


def normal_path(path: bytes) -> bytes:
    """An absolute path with one slash between parts, none at its end (but for ``/``), and no ``.`` parts.

    Raises ``InvalidValue`` when it is not absolute or has ``..`` (which symbolic links make ambiguous) or a NUL byte.
    """
    parts = [part for part in path.split(b"/") if part not in {b"", b"."}]
    if not path.startswith(b"/") or b".." in parts or b"\x00" in path:
        raise InvalidValue(value=path, what="path", expected='Give an absolute path without ".."')
    return b"/" + b"/".join(parts)


def merged_roots(roots: Iterable[bytes], *, nested: bool = False) -> list[bytes]:
    """Normal roots in path order, each once; those below another one only with ``nested``."""
    kept: list[bytes] = []
    for root in sorted({normal_path(root) for root in roots}, key=lambda path: path_key(path.rstrip(b"/"))):
        if nested or not kept or not is_below(root, kept[-1]):
            kept.append(root)
    return kept


def is_below(path: bytes, folder: bytes) -> bool:
    """Whether the normal absolute ``path`` is ``folder`` or lies in it."""
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


class _Globs:
    """Patterns as two regular expressions: over the whole path, and over its last part."""

    def __init__(self, patterns: Sequence[str]) -> None:
        whole: list[str] = []
        last: list[str] = []
        for pattern in patterns:
            body = pattern.rstrip("/")
            if not body:
                raise InvalidValue(value=pattern, what="exclude pattern", expected="It would leave out everything")
            if "/" not in body:
                last.append(_regex(body))
                whole.append(_regex(body))
            else:
                whole.append(_regex(body if body[0] in "/*" else "*/" + body))
        self._whole = re.compile("|".join(f"(?:{part})" for part in whole), re.DOTALL) if whole else None
        self._last = re.compile("|".join(f"(?:{part})" for part in last), re.DOTALL) if last else None

    def __bool__(self) -> bool:
        return self._whole is not None

    def match(self, path: str) -> bool:
        """Whether one of the patterns matches the absolute path."""
        if self._last is not None and self._last.fullmatch(path, path.rfind("/") + 1):
            return True
        return self._whole is not None and self._whole.fullmatch(path) is not None


def _regex(glob: str) -> str:
    """A glob as a regular expression for ``fullmatch`` that never backtracks over a star but the last one."""
    runs: list[list[str]] = [[]]
    at = 0
    while at < len(glob):
        char = glob[at]
        at += 1
        if char == "*":
            runs.append([])
        elif char == "?":
            runs[-1].append(".")
        elif char == "[":
            end = glob.find("]", at + 2 if glob[at : at + 1] in {"!", "^"} else at + 1)
            if end < 0:
                runs[-1].append(r"\[")
                continue
            runs[-1].append(_class(glob[at:end]))
            at = end + 1
        else:
            runs[-1].append(re.escape(char))
    first, *others = ["".join(run) for run in runs]
    if not others:
        return first
    # A star with what follows it may take the earliest place: nothing is lost by never trying a later one.
    return first + "".join(f"(?>.*?{run})" for run in others[:-1] if run) + ".*" + others[-1]


def _class(body: str) -> str:
    negated = body[0] in "!^"
    chars = body[1:] if negated else body
    items: list[str] = []
    at = 0
    while at < len(chars):
        if at + 2 < len(chars) and chars[at + 1] == "-":
            if chars[at] <= chars[at + 2]:
                items.append(f"{re.escape(chars[at])}-{re.escape(chars[at + 2])}")
            at += 3
        else:
            items.append(re.escape(chars[at]))
            at += 1
    if not items:
        return "(?!)" if not negated else "."
    return f"[{'^' if negated else ''}{''.join(items)}]"
