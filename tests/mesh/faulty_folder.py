"""A file system that passes everything on to a folder, and fails on demand: a FUSE server of one process, spoken to the
kernel directly (``/dev/fuse``, protocol 7.31, https://www.kernel.org/doc/html/latest/filesystems/fuse/fuse.html), so that
it needs no library.

``python faulty_folder.py REAL FD FAULTS``: ``FD`` is the mounted device. ``FAULTS`` is a file with lines ``OPERATION FAULT
[PART-OF-PATH]``, read again before each operation. ``FAULT`` is the name of an error (``EIO``), ``hang`` (it is answered
only when it no longer says so; whoever waits cannot even be killed), or ``short`` (half of what was to be written or read).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import stat
import struct
import sys
from collections.abc import Callable
from typing import Any

_IN = struct.Struct("<IIQQIIII")
_OUT = struct.Struct("<IiQ")
_ATTR = struct.Struct("<6Q10I")
_ENTRY = struct.Struct("<QQQQII")
_ATTR_HEAD = struct.Struct("<QII")
_INIT = struct.Struct("<IIIIHHIIHHI7I")
_SETATTR = struct.Struct("<IIQQQQQQIIIIIIII")
_STATFS = struct.Struct("<5Q10I")
_MAX_WRITE = 1 << 17
_BIG_WRITES = 1 << 5
#: Every read and write comes here: nothing hides in the page cache.
_DIRECT_IO = 1
_FORGET, _INTERRUPT, _BATCH_FORGET = 2, 36, 42
_libc = ctypes.CDLL(None, use_errno=True)


class _Short(Exception):
    """Half of it."""


class _Hang(Exception):
    """No answer for now."""


class Server:
    def __init__(self, real: str, fd: int, faults: str) -> None:
        self._real, self._fd, self._faults = real, fd, faults
        self._paths = {1: ""}
        self._nodes = {"": 1}
        self._next = 2
        self._hanging: list[bytes] = []
        self._operations: dict[int, tuple[str, Callable[[int, bytes], bytes]]] = {
            1: ("lookup", self._lookup), 3: ("getattr", self._getattr), 4: ("setattr", self._setattr),
            5: ("readlink", self._readlink), 6: ("symlink", self._symlink), 8: ("mknod", self._mknod), 9: ("mkdir", self._mkdir),
            10: ("unlink", self._unlink), 11: ("rmdir", self._rmdir), 12: ("rename", self._rename),
            13: ("link", self._link), 14: ("open", self._open), 15: ("read", self._read), 16: ("write", self._write),
            17: ("statfs", self._statfs), 18: ("release", self._release), 20: ("fsync", self._fsync),
            25: ("flush", self._flush), 27: ("opendir", self._opendir), 28: ("readdir", self._readdir),
            29: ("releasedir", self._release), 30: ("fsyncdir", self._fsync), 35: ("create", self._create),
            45: ("rename", self._rename2),
        }  # fmt: skip

    def run(self) -> None:
        while True:
            # what hangs is tried again now and then
            ready, _, _ = select.select([self._fd], [], [], 0.02 if self._hanging else None)
            if not ready:
                waiting, self._hanging = self._hanging, []
                for request in waiting:
                    self._serve(request)
                continue
            try:
                request = os.read(self._fd, _MAX_WRITE + 4096)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return  # unmounted
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue
                raise
            self._serve(request)

    def _serve(self, request: bytes) -> None:
        _, opcode, unique, node, *_ = _IN.unpack_from(request)
        body = request[_IN.size :]
        if opcode in (_FORGET, _INTERRUPT, _BATCH_FORGET):
            return
        if opcode == 26:
            self._answer(unique, 0, _INIT.pack(7, 31, 1 << 17, _BIG_WRITES, 16, 12, _MAX_WRITE, 1, 32, 0, 0, *[0] * 7))
            return
        known = self._operations.get(opcode)
        if known is None:
            self._answer(unique, errno.ENOSYS)
            return
        name, operation = known
        try:
            self._answer(unique, 0, operation(node, self._fault(name, node, body)))
        except _Hang:
            self._hanging.append(request)
        except OSError as error:
            self._answer(unique, error.errno or errno.EIO)
        except KeyError:
            self._answer(unique, errno.ESTALE)

    def _answer(self, unique: int, error: int, data: bytes = b"") -> None:
        with contextlib.suppress(OSError):  # who asked may be gone
            os.write(self._fd, _OUT.pack(_OUT.size + len(data), -error, unique) + data)

    def _fault(self, name: str, node: int, body: bytes) -> bytes:
        """The request as it is to be done. Raises what is to go wrong."""
        try:
            with open(self._faults, encoding="utf-8") as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return body
        path = self._paths.get(node, "")
        if name in ("lookup", "mkdir", "mknod", "create", "unlink", "rename", "link"):
            path += "/" + body.rstrip(b"\0").rpartition(b"\0")[2].decode("utf-8", "replace")
        for line in lines:
            operation, what, *part = line.split()
            if operation not in (name, "all") or (part and part[0] not in path):
                continue
            if what == "hang":
                raise _Hang
            if what == "short" and name in ("read", "write"):
                size = struct.unpack_from("<I", body, 16)[0]
                return body[:16] + struct.pack("<I", max(1, size // 2)) + body[20:]
            raise OSError(getattr(errno, what), "as was asked for")
        return body

    # --- names ---

    def _path(self, node: int) -> str:
        return self._real + self._paths[node]

    def _below(self, node: int, name: bytes) -> str:
        return f"{self._paths[node]}/{os.fsdecode(name)}"

    def _node(self, path: str) -> int:
        node = self._nodes.get(path)
        if node is None:
            node = self._nodes[path] = self._next
            self._paths[node] = path
            self._next += 1
        return node

    def _moved(self, old: str, new: str) -> None:
        self._nodes.pop(new, None)
        for path in [path for path in self._nodes if path == old or path.startswith(old + "/")]:
            node = self._nodes.pop(path)
            self._paths[node] = new + path[len(old) :]
            self._nodes[self._paths[node]] = node

    def _attr(self, status: os.stat_result) -> bytes:
        times = (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
        return _ATTR.pack(
            status.st_ino, status.st_size, status.st_blocks, *(each // 10**9 for each in times),
            *(each % 10**9 for each in times), status.st_mode, status.st_nlink, status.st_uid, status.st_gid,
            status.st_rdev & 0xFFFFFFFF, status.st_blksize, 0,
        )  # fmt: skip

    def _entry(self, path: str) -> bytes:
        status = os.lstat(self._real + path)
        return _ENTRY.pack(self._node(path), 0, 0, 0, 0, 0) + self._attr(status)

    # --- operations ---

    def _lookup(self, node: int, body: bytes) -> bytes:
        return self._entry(self._below(node, body.rstrip(b"\0")))

    def _getattr(self, node: int, body: bytes) -> bytes:
        flags, _, fh = struct.unpack_from("<IIQ", body)
        return _ATTR_HEAD.pack(0, 0, 0) + self._attr(os.fstat(fh) if flags & 1 else os.lstat(self._path(node)))

    def _setattr(self, node: int, body: bytes) -> bytes:
        valid, _, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _ = _SETATTR.unpack_from(body)
        path = self._path(node)
        if valid & 1:
            os.chmod(path, stat.S_IMODE(mode))
        if valid & 6:
            os.lchown(path, uid if valid & 2 else -1, gid if valid & 4 else -1)
        if valid & 8:
            os.truncate(path, size)
        if valid & 0x30:
            now = os.lstat(path)
            times = (
                atime * 10**9 + atime_ns if valid & 0x10 else now.st_atime_ns,
                mtime * 10**9 + mtime_ns if valid & 0x20 else now.st_mtime_ns,
            )
            os.utime(path, ns=times, follow_symlinks=False)
        return _ATTR_HEAD.pack(0, 0, 0) + self._attr(os.lstat(path))

    def _readlink(self, node: int, body: bytes) -> bytes:
        return os.fsencode(os.readlink(self._path(node)))

    def _symlink(self, node: int, body: bytes) -> bytes:
        name, target, _ = body.split(b"\0", 2)
        path = self._below(node, name)
        os.symlink(os.fsdecode(target), self._real + path)
        return self._entry(path)

    def _mknod(self, node: int, body: bytes) -> bytes:
        mode, rdev = struct.unpack_from("<II", body)
        path = self._below(node, body[16:].rstrip(b"\0"))
        os.mknod(self._real + path, mode, rdev)
        return self._entry(path)

    def _mkdir(self, node: int, body: bytes) -> bytes:
        mode, _ = struct.unpack_from("<II", body)
        path = self._below(node, body[8:].rstrip(b"\0"))
        os.mkdir(self._real + path, mode)
        return self._entry(path)

    def _unlink(self, node: int, body: bytes) -> bytes:
        path = self._below(node, body.rstrip(b"\0"))
        os.unlink(self._real + path)
        self._nodes.pop(path, None)
        return b""

    def _rmdir(self, node: int, body: bytes) -> bytes:
        path = self._below(node, body.rstrip(b"\0"))
        os.rmdir(self._real + path)
        self._nodes.pop(path, None)
        return b""

    def _rename(self, node: int, body: bytes, *, at: int = 8, flags: int = 0) -> bytes:
        (folder,) = struct.unpack_from("<Q", body)
        old, new, _ = body[at:].split(b"\0", 2)
        begin, end = self._below(node, old), self._below(folder, new)
        names = os.fsencode(self._real + begin), os.fsencode(self._real + end)
        if _libc.renameat2(-100, names[0], -100, names[1], flags):
            raise OSError(ctypes.get_errno(), "rename")
        self._moved(begin, end)
        return b""

    def _rename2(self, node: int, body: bytes) -> bytes:
        return self._rename(node, body, at=16, flags=struct.unpack_from("<QI", body)[1])

    def _link(self, node: int, body: bytes) -> bytes:
        (old,) = struct.unpack_from("<Q", body)
        path = self._below(node, body[8:].rstrip(b"\0"))
        os.link(self._path(old), self._real + path)
        return self._entry(path)

    def _opened(self, fh: int) -> bytes:
        return struct.pack("<QII", fh, _DIRECT_IO, 0)

    def _open(self, node: int, body: bytes) -> bytes:
        flags = struct.unpack_from("<I", body)[0] & ~(os.O_CREAT | os.O_EXCL | os.O_NOCTTY)
        return self._opened(os.open(self._path(node), flags | os.O_CLOEXEC))

    def _create(self, node: int, body: bytes) -> bytes:
        flags, mode, _, _ = struct.unpack_from("<IIII", body)
        path = self._below(node, body[16:].rstrip(b"\0"))
        fh = os.open(self._real + path, flags | os.O_CREAT | os.O_CLOEXEC, stat.S_IMODE(mode))
        return self._entry(path) + self._opened(fh)

    def _read(self, node: int, body: bytes) -> bytes:
        fh, offset, size = struct.unpack_from("<QQI", body)
        return os.pread(fh, size, offset)

    def _write(self, node: int, body: bytes) -> bytes:
        fh, offset, size = struct.unpack_from("<QQI", body)
        return struct.pack("<II", os.pwrite(fh, body[40 : 40 + size], offset), 0)

    def _statfs(self, node: int, body: bytes) -> bytes:
        status = os.statvfs(self._real)
        return _STATFS.pack(
            status.f_blocks, status.f_bfree, status.f_bavail, status.f_files, status.f_ffree, status.f_bsize,
            status.f_namemax, status.f_frsize, *[0] * 7,
        )  # fmt: skip

    def _release(self, node: int, body: bytes) -> bytes:
        os.close(struct.unpack_from("<Q", body)[0])
        return b""

    def _fsync(self, node: int, body: bytes) -> bytes:
        os.fsync(struct.unpack_from("<Q", body)[0])
        return b""

    def _flush(self, node: int, body: bytes) -> bytes:
        return b""

    def _opendir(self, node: int, body: bytes) -> bytes:
        return struct.pack("<QII", os.open(self._path(node), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), 0, 0)

    def _readdir(self, node: int, body: bytes) -> bytes:
        fh, offset, size = struct.unpack_from("<QQI", body)
        found = b""
        names: list[Any] = [".", "..", *sorted(os.listdir(fh))]
        for number, name in enumerate(names[offset:], offset + 1):
            text = os.fsencode(name)
            record = struct.pack("<QQII", 1, number, len(text), 0) + text
            record += bytes(-len(record) % 8)
            if len(found) + len(record) > size:
                break
            found += record
        return found


if __name__ == "__main__":
    Server(os.path.realpath(sys.argv[1]), int(sys.argv[2]), sys.argv[3]).run()
