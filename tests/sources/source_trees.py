"""Small awkward trees, and a plain copy through walk, read and write, for the tests of sources."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable

import msgspec
import pytest
from msgspec.structs import replace

from caso_mesh.model.entries import Entry, EntryType, SourceException
from caso_mesh.model.states import Overwrite
from caso_mesh.sources.filters import Filters, Note
from caso_mesh.sources.walk import Walker
from caso_mesh.sources.walked import Walked
from caso_mesh.sources.writer import RestoreOptions, TreeTarget
from caso_mesh.vault.known import is_whole
from caso_mesh.vault.tree_codec import Row, encode_row

MODIFIED = 1_600_000_000_987_654_321
ROOT = os.geteuid() == 0
ALWAYS = RestoreOptions(Overwrite.ALWAYS)
SETFLAGS, GETFLAGS = 0x40086602, 0x80086601


class Report:
    """What the walk and the restore told."""

    def __init__(self) -> None:
        self.exceptions: list[SourceException] = []
        self.notes: list[Note] = []

    def reasons(self) -> list[tuple[str, str]]:
        """(last part, reason) of each exception."""
        return [(os.fsdecode(found.path.rpartition(b"/")[2]), found.reason) for found in self.exceptions]

    def noted(self) -> list[tuple[str, str]]:
        """(last part, reason) of each note."""
        return [(os.fsdecode(found.path.rpartition(b"/")[2]), found.reason) for found in self.notes]


def walk(root: bytes | list[bytes], filters: Filters | None = None, report: Report | None = None, **options) -> Walker:
    """A walker that reports into ``report``."""
    report = report or Report()
    roots = [root] if isinstance(root, bytes) else root
    return Walker(
        roots, filters or Filters(), on_exception=report.exceptions.append, on_note=report.notes.append, **options
    )


class Earlier:
    """An earlier set, made of what a walk found. ``whole``: whether all content was read; ``user``: another owner."""

    def __init__(self, found: Iterable[Walked], *, whole: bool = True, user: str | None = None) -> None:
        self.asked: list[bytes] = []
        self.entries: dict[bytes, Entry] = {}
        for walked in found:
            entry = walked.entry
            if entry.type is EntryType.FILE and entry.hardlink is None and whole and entry.size:
                entry = replace(entry, chunks=((b"i" * 32, entry.size),))
            self.entries[entry.path] = entry if user is None else replace(entry, user=user)

    def find(self, path: bytes):
        self.asked.append(path)
        entry = self.entries.get(path)
        if entry is None:
            return None
        row, _ = encode_row(entry, lambda data: data)
        return msgspec.msgpack.decode(row, type=Row), self, path

    def entry(self, piece, path: bytes) -> Entry | None:
        assert piece is self
        return self.entries[path]

    is_whole = staticmethod(is_whole)


def paths(root: bytes, walker: Walker) -> list[str]:
    """Paths relative to ``root``, the root itself as "."."""
    cut = len(root.lstrip(b"/")) + 1
    return [os.fsdecode(walked.entry.path[cut:]) or "." for walked in walker]


def pour(walked: Walked, target: TreeTarget, block: int = 1 << 16) -> None:
    """Copy the content of a file, data only."""
    with walked.open() as source:
        for offset, length in source.extents():
            end = offset + length
            while offset < end:
                buffer = bytearray(min(block, end - offset))
                count = source.read_into(buffer, offset)
                if not count:
                    break
                target.write(walked.entry.path, offset, memoryview(buffer)[:count])
                offset += count
        change = source.change()
    assert change is None


def at_once(walked: Walked, target: TreeTarget) -> None:
    """As ``pour`` and ``finish``, in one call."""
    data = bytearray(walked.entry.size)
    with walked.open() as source:
        assert source.read_into(data, 0) == len(data)
        assert source.change() is None
    target.put(walked.entry, data)


def copy(
    source: bytes,
    into: bytes,
    options: RestoreOptions = ALWAYS,
    *,
    report: Report | None = None,
    before_finish: Callable[[Walked], None] | None = None,
) -> Report:
    """Walk ``source`` and restore all of it as ``into``; what was reported."""
    report = report or Report()
    target = TreeTarget(into, options, strip=source.lstrip(b"/"), on_exception=report.exceptions.append)
    try:
        for walked in walk(source, report=report):
            if not target.begin(walked.entry):
                continue
            if walked.entry.type is EntryType.FILE and walked.entry.hardlink is None:
                if before_finish is None and 0 < walked.entry.size <= 4096:
                    at_once(walked, target)
                    continue
                pour(walked, target)
            if before_finish is not None:
                before_finish(walked)
            target.finish(walked.entry)
    finally:
        target.close()
    return report


def put(path: bytes, data: bytes = b"x", mode: int = 0o644, modified: int = MODIFIED) -> bytes:
    """A file with the given bytes, mode and time in nanoseconds."""
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)
    os.utime(path, ns=(modified, modified))
    return path


def acl(*entries: tuple[int, int, int]) -> bytes:
    """``system.posix_acl_*`` of (tag, permissions, id) as Linux keeps it: version 2, little-endian."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


#: user::rw-, user:1234:rw-, group::r--, mask::rw-, other::r--
ACCESS_ACL = acl((1, 6, 0xFFFFFFFF), (2, 6, 1234), (4, 4, 0xFFFFFFFF), (0x10, 6, 0xFFFFFFFF), (0x20, 4, 0xFFFFFFFF))
DEFAULT_ACL = acl((1, 7, 0xFFFFFFFF), (2, 7, 1234), (4, 5, 0xFFFFFFFF), (0x10, 7, 0xFFFFFFFF), (0x20, 5, 0xFFFFFFFF))
#: cap_net_bind_service=ep
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)


def set_raw_flags(path: bytes, flags: int) -> None:
    """Add (or with 0 clear) no-dump, immutable and append-only."""
    fd = os.open(path, os.O_RDONLY)
    try:
        buffer = bytearray(8)
        fcntl.ioctl(fd, GETFLAGS, buffer, True)
        now = int.from_bytes(buffer[:4], sys.byteorder) & ~0x70
        fcntl.ioctl(fd, SETFLAGS, (now | flags).to_bytes(4, sys.byteorder) + bytes(4))
    finally:
        os.close(fd)


def edge_tree(root: bytes) -> list[str]:
    """Every awkward object a plain user can make; with root also owners, nodes, trusted attributes and capabilities.

    Returns what this file system refused.
    """
    refused: list[str] = []

    def at(*parts: bytes) -> bytes:
        return os.path.join(root, *parts)

    def attempt(what: str, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            refused.append(f"{what}: {error}")

    os.mkdir(root)
    for folder in (b"links", b"links/below", b"names", b"names/d\xff", b"modes", b"times", b"special", b"extra"):
        os.mkdir(at(folder))
    put(at(b"links", b"a"), b"linked")
    os.link(at(b"links", b"a"), at(b"links", b"below", b"c"))
    os.link(at(b"links", b"a"), at(b"links", b"z"))
    for name, target in ((b"good", b"a"), (b"dangling", b"no/such"), (b"loop", b"loop"), (b"t\xff", b"t\xff\xfe\n")):
        os.symlink(target, at(b"links", name))
    os.symlink(b"x" * 1000, at(b"links", b"long"))
    os.link(at(b"links", b"good"), at(b"links", b"good2"), follow_symlinks=False)
    os.utime(at(b"links", b"good"), ns=(5, MODIFIED - 5), follow_symlinks=False)
    for name in (
        b"n" * 255,
        "ü".encode() * 127,
        b"latin1-\xe9\xff",
        b"bad\xc3(",
        b"new\nline",
        b" lead",
        b"trail ",
        b"-rf",
        b"back\\slash",
        b"star*?[a]",
        b"..dots",
        b"\x01ctl\x7f",
        "caf\u00e9".encode(),
        "cafe\u0301".encode(),
        b"Case",
        b"case",
        b"a",
        b"a-b",
        b"a.b",
    ):
        put(at(b"names", name), name)
    os.mkdir(at(b"names", b"A"))
    put(at(b"names", b"A", b"in"), b"sorts before A-")
    put(at(b"names", b"A-"), b"sorts after all in A")
    put(at(b"names", b"d\xff", b"in"), b"y")
    put(at(b"empty"), b"")
    os.mkdir(at(b"bare"))
    # What keeps its owner out a plain user cannot read either.
    for mode in (0o400, 0o755, 0o1644, 0o2755, 0o4755, 0o7777, *((0o000, 0o222) if ROOT else ())):
        put(at(b"modes", b"%o" % mode), b"m", mode)
    for name, moment in (
        (b"ns", 1_234_567_890_123_456_789),
        (b"epoch", 0),
        (b"before-1970", -86400 * 365 * 10**9 - 500_000_001),
        (b"y1902", -2_147_000_000 * 10**9),
        (b"y2038", 2**31 * 10**9 + 7),
        (b"y2100", 4102444800 * 10**9 + 1),
        (b"y2400", 13569465600 * 10**9),
    ):
        put(at(b"times", name), name, modified=moment)
    os.mkfifo(at(b"special", b"pipe"), 0o640)
    os.link(at(b"special", b"pipe"), at(b"special", b"pipe2"))
    os.mknod(at(b"special", b"socket"), stat.S_IFSOCK | 0o600)
    with open(put(at(b"sparse"), b""), "r+b") as file:
        for offset in (1 << 20, 5 << 20):
            file.seek(offset)
            file.write(os.urandom(65536))
        file.truncate(8 << 20)
    put(at(b"zeros"), bytes(200_000))
    with open(at(b"hole"), "wb") as file:
        file.truncate(3_000_001)
    put(at(b"extra", b"user"))
    attempt("xattr", lambda: os.setxattr(at(b"extra", b"user"), b"user.bin", bytes(range(256))))
    attempt("xattr", lambda: os.setxattr(at(b"extra", b"user"), b"user.empty", b""))
    attempt("xattr", lambda: os.setxattr(at(b"extra"), b"user.folder", b"f"))
    put(at(b"extra", b"read-only"), b"r")
    attempt("xattr", lambda: os.setxattr(at(b"extra", b"read-only"), b"user.kept", b"also without write permission"))
    os.chmod(at(b"extra", b"read-only"), 0o444)
    put(at(b"extra", b"acl"))
    attempt("acl", lambda: os.setxattr(at(b"extra", b"acl"), b"system.posix_acl_access", ACCESS_ACL))
    os.mkdir(at(b"extra", b"default"))
    attempt("acl", lambda: os.setxattr(at(b"extra", b"default"), b"system.posix_acl_default", DEFAULT_ACL))
    put(at(b"extra", b"no-dump"))
    attempt("flags", lambda: set_raw_flags(at(b"extra", b"no-dump"), 0x40))
    attempt("flags", lambda: set_raw_flags(at(b"extra", b"default"), 0x40))
    if ROOT:
        _edge_of_root(at, attempt)
    os.mkdir(at(b"modes", b"closed"))
    put(at(b"modes", b"closed", b"in"))
    os.chmod(at(b"modes", b"closed"), 0o555)
    for folder, _, _ in os.walk(root, topdown=False):
        os.utime(folder, ns=(MODIFIED, MODIFIED - 1000))
    return refused


def _edge_of_root(at: Callable[..., bytes], attempt: Callable[[str, Callable[[], object]], None]) -> None:
    attempt("node", lambda: os.mknod(at(b"special", b"chr"), stat.S_IFCHR | 0o600, os.makedev(1, 3)))
    attempt("node", lambda: os.mknod(at(b"special", b"blk"), stat.S_IFBLK | 0o600, os.makedev(7, 200)))
    attempt("node", lambda: os.link(at(b"special", b"chr"), at(b"special", b"chr2")))
    put(at(b"extra", b"owned"))
    os.chown(at(b"extra", b"owned"), 4_000_000_000, 4_000_000_001)
    os.chown(at(b"links", b"dangling"), 1234, 2345, follow_symlinks=False)
    put(at(b"extra", b"suid"))
    os.chown(at(b"extra", b"suid"), 1234, 2345)
    os.chmod(at(b"extra", b"suid"), 0o6755)
    put(at(b"extra", b"caps"), mode=0o755)
    os.chown(at(b"extra", b"caps"), 1234, 2345)
    attempt("capability", lambda: os.setxattr(at(b"extra", b"caps"), b"security.capability", CAPABILITY))
    attempt("trusted", lambda: os.setxattr(at(b"extra", b"caps"), b"trusted.t", b"1"))
    attempt(
        "trusted",
        lambda: os.setxattr(at(b"links", b"good"), b"trusted.link", b"1", follow_symlinks=False),
    )
    os.mkdir(at(b"modes", b"locked"), 0o000)
    os.chmod(at(b"modes", b"locked"), 0)


def deep_tree(place: bytes, depth: int, name: bytes) -> None:
    """``depth`` folders inside each other, each with a file, far beyond what one path may name."""
    fd = os.open(place, os.O_RDONLY)
    for level in range(depth):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
        file = os.open(b"z", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
        os.write(file, b"%d" % level)
        os.close(file)
    os.close(fd)


_HERE = os.path.dirname(os.path.abspath(__file__))
_PROGRAM = f"""
import os, subprocess, sys
sys.path[:0] = [{_HERE!r}, {os.path.dirname(os.path.dirname(_HERE))!r}]
import source_trees
from source_trees import *
from caso_mesh.sources.compare import differences
from caso_mesh.sources.metadata import sees_trusted
from caso_mesh.sources.reasons import Unreadable
"""


def _run(prefix: list[str], program: str, folder: bytes) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, sys.executable, "-W", "error", "-c", program, os.fsdecode(folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )


def as_plain_user(script: str, folder: bytes) -> str:
    """What a script prints that runs without privileges (as ``nobody`` where this process is root) on ``folder``."""
    # Everything is imported before privileges go: the product's own folder may be closed to others.
    drop = (
        "if os.geteuid() == 0:\n    os.setgroups([]); os.setgid(65534); os.setuid(65534)\nsource_trees.ROOT = False\n"
    )
    done = _run([], _PROGRAM + drop + textwrap.dedent(script), folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_mount_namespace(script: str, folder: bytes) -> str:
    """What a script prints that may mount below ``folder``: the mounts are gone with it."""
    probe = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True, text=True)
    if probe.returncode != 0:
        pytest.skip(f"no mount namespaces here: {probe.stderr.strip()}")
    done = _run(["unshare", "--mount"], _PROGRAM + textwrap.dedent(script), folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def socket_at(path: str) -> None:
    """A socket file as a server leaves it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
