"""A disk or shared folder as a device.

Everything is reached from one folder handle that is opened at the start: a mount that goes away underneath can never
be mistaken for the empty folder below it. What is written goes to a temporary file, is made durable, then moves into
place without replacing anything, then the folders are made durable.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import threading
from collections.abc import Iterator, Sequence

from caso_mesh.devices.direct import DIRECT_FROM, DirectReader, write_large
from caso_mesh.devices.durable import FolderSyncs, move_into_place
from caso_mesh.devices.port import RESERVE, check_object_name, device_error, is_object_name, may_use_reserve
from caso_mesh.model.clock import Randomness
from caso_mesh.model.errors import CasoError, DeviceFull, DeviceVanished, Misuse, ObjectExists, ObjectMissing

#: Where unfinished objects lie; begins with a dot, so it is never an object name.
TEMPORARY = ".caso-mesh-tmp"
#: Free space is asked for anew after this many bytes at the latest.
SPACE_CHECK_BYTES = 64 * 1024 * 1024
#: What a file takes beyond its bytes, by a wide estimate, and the unit its bytes are rounded up to.
_BLOCK = 4096
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER_MODE, _FILE_MODE = 0o770, 0o660  # a shared folder may be written by several accounts of one group


class FolderBackend:
    """Objects as files below ``path``. ``device`` is the name that errors carry.

    ``marker`` is an object that must be there (``format``); None only while a vault is being made. Raises
    ``DeviceVanished`` if the folder or the marker is missing, ``DeviceError``.
    """

    def __init__(self, path: str, device: str, *, marker: str | None, randomness: Randomness = os.urandom) -> None:
        self.path = path
        self.device = device
        self._marker = marker
        self._token = randomness(8).hex()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._credit = 0
        self._syncs = FolderSyncs()
        self._direct = DirectReader()
        self._known: set[str] = set()
        try:
            self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DeviceVanished(device=device, detail=f"{path}: {os.strerror(error.errno or 0)}") from error
        except OSError as error:
            raise device_error(device, error, writing=False) from error
        status = os.fstat(self._root)
        self._identity = (status.st_dev, status.st_ino)
        try:
            self._check_present()
        except BaseException:
            self.close()
            raise

    def put(self, name: str, parts: Sequence[bytes | memoryview | bytearray]) -> None:
        check_object_name(name)
        self._check_present()
        folder, _, last = name.rpartition("/")
        try:
            with contextlib.ExitStack() as stack:
                target = self._open_folder(folder, create=True)
                stack.callback(os.close, target)
                if _exists(last, target):
                    self._syncs.sync(folder, target)
                    raise ObjectExists(name=name)
                self._take_space(name, sum(memoryview(part).nbytes for part in parts))
                self._add(folder, target, last, parts)
            # what was written lies in the folder that was opened; whether that still is the device is another question
            self._check_present()
        except FileExistsError as error:
            raise ObjectExists(name=name) from error
        except OSError as error:
            raise self._failure(error, writing=True) from error

    def _add(self, folder: str, target: int, last: str, parts: Sequence[bytes | memoryview | bytearray]) -> None:
        temporary = self._open_temporary_folder()
        name = f"{self._token}-{os.getpid()}-{next(self._numbers)}"
        try:
            fd = os.open(
                name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE, dir_fd=temporary
            )
            try:
                write_large(fd, parts)
                os.fdatasync(fd)
                move_into_place(fd, name, temporary, last, target)
            except BaseException as error:
                # The first failure is the one to tell; what is left behind is swept later.
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=temporary)
                if isinstance(error, FileExistsError):
                    # Who lost the race may rely on the winner's object: durable here as well.
                    self._syncs.sync(folder, target)
                raise
            finally:
                os.close(fd)
        finally:
            os.close(temporary)
        self._syncs.sync(folder, target)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        fd = self._open_object(name)
        try:
            left = max(0, os.fstat(fd).st_size - offset)
            left = left if length is None else min(left, length)
            if left >= DIRECT_FROM:
                found = self._direct.read(fd, offset, left)
                if found is not None:
                    return found
            pieces: list[bytes] = []
            while left > 0:
                piece = os.pread(fd, left, offset)
                if not piece:
                    break
                pieces.append(piece)
                offset += len(piece)
                left -= len(piece)
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        except OSError as error:
            raise self._failure(error, writing=False) from error
        finally:
            os.close(fd)

    def size(self, name: str) -> int:
        fd = self._open_object(name)
        try:
            return os.fstat(fd).st_size
        except OSError as error:
            raise self._failure(error, writing=False) from error
        finally:
            os.close(fd)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        self._check_present()
        folder = prefix.rpartition("/")[0]
        if folder and not is_object_name(folder):
            raise Misuse(f"{prefix!r} is not the beginning of an object name")
        yield from self._list(folder, prefix)
        # Without this a folder that went away in the middle would look like one with fewer objects.
        self._check_present()

    def _list(self, folder: str, prefix: str) -> Iterator[tuple[str, int]]:
        entries: list[tuple[str, int | None]] = []
        try:
            fd = self._open_folder(folder, create=False)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._failure(error, writing=False) from error
        try:
            with os.scandir(fd) as found:
                for entry in found:
                    full = f"{folder}/{entry.name}" if folder else entry.name
                    if not is_object_name(full):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        # As "name/": so that folders stand where their objects belong in the order of full names.
                        full += "/"
                        if full.startswith(prefix) or prefix.startswith(full):
                            entries.append((full, None))
                    elif entry.is_file(follow_symlinks=False) and full.startswith(prefix):
                        with contextlib.suppress(FileNotFoundError):  # deleted since
                            entries.append((full, entry.stat(follow_symlinks=False).st_size))
        except OSError as error:
            raise self._failure(error, writing=False) from error
        finally:
            os.close(fd)
        entries.sort()
        for full, size in entries:
            if size is None:
                yield from self._list(full[:-1], prefix)
            else:
                yield full, size

    def delete(self, name: str) -> None:
        check_object_name(name)
        self._check_present()
        folder, _, last = name.rpartition("/")
        try:
            target = self._open_folder(folder, create=False)
            try:
                status = os.stat(last, dir_fd=target, follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    raise ObjectMissing(name=name)
                os.unlink(last, dir_fd=target)
                self._syncs.sync(folder, target)
            finally:
                os.close(target)
        except FileNotFoundError as error:
            raise ObjectMissing(name=name) from error
        except OSError as error:
            raise self._failure(error, writing=True) from error
        with self._lock:
            self._credit = 0

    def space(self) -> tuple[int, int]:
        self._check_present()
        return self._space()

    def close(self) -> None:
        root, self._root = self._root, -1
        if root >= 0:
            os.close(root)

    def sweep_temporary(
        self, now_ns: int, *, older_than_s: float = 86400.0, remove: bool = True
    ) -> Sequence[tuple[str, int]]:
        """(name, bytes) of temporary files that dead writers left: not ours and older than ``older_than_s`` by
        ``now_ns``; removed as well, unless ``remove`` is false.
        """
        self._check_present()
        left: list[tuple[str, int]] = []
        try:
            folder = self._open_folder(TEMPORARY, create=False)
        except FileNotFoundError:
            return left
        except OSError as error:
            raise self._failure(error, writing=False) from error
        try:
            for name in sorted(os.listdir(folder)):
                with contextlib.suppress(FileNotFoundError):  # its writer lives and has finished it
                    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    old = status.st_mtime_ns < now_ns - older_than_s * 1e9
                    if not old or name.startswith(self._token) or not stat.S_ISREG(status.st_mode):
                        continue
                    if remove:
                        os.unlink(name, dir_fd=folder)
                    left.append((name, status.st_size))
        except OSError as error:
            raise self._failure(error, writing=True) from error
        finally:
            os.close(folder)
        return left

    def _check_present(self) -> None:
        """Raises ``DeviceVanished`` unless the path still leads to the folder that was opened, and holds the marker."""
        if self._root < 0:
            raise Misuse("the device was closed")
        try:
            status = os.stat(self.path)
            if (status.st_dev, status.st_ino) != self._identity:
                raise DeviceVanished(device=self.device, detail=f"{self.path} is another folder now")
            if self._marker is not None and not _exists(self._marker, self._root):
                raise DeviceVanished(device=self.device, detail=f"{self.path} has no {self._marker}")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DeviceVanished(device=self.device, detail=f"{self.path} does not exist") from error
        except OSError as error:
            raise device_error(self.device, error, writing=False) from error

    def _failure(self, error: OSError, *, writing: bool) -> CasoError:
        """What to report for ``error``: that the device is gone, if it is."""
        try:
            self._check_present()
        except DeviceVanished as gone:
            return gone
        except CasoError:  # the first failure tells more
            pass
        return device_error(self.device, error, writing=writing)

    def _open_object(self, name: str) -> int:
        check_object_name(name)
        if self._root < 0:
            raise Misuse("the device was closed")
        folder, _, last = name.rpartition("/")
        try:
            parent = self._open_folder(folder, create=False)
            try:
                # Not blocking: a foreign FIFO of that name must not hang the reader.
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                fd = os.open(last, flags, dir_fd=parent)
            finally:
                os.close(parent)
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return fd
            os.close(fd)
        except FileNotFoundError as error:
            self._check_present()
            raise ObjectMissing(name=name) from error
        except OSError as error:
            raise self._failure(error, writing=False) from error
        raise ObjectMissing(name=name)

    def _open_temporary_folder(self) -> int:
        try:
            return self._open_folder(TEMPORARY, create=False)
        except FileNotFoundError:
            return self._open_folder(TEMPORARY, create=True)

    def _open_folder(self, folder: str, *, create: bool) -> int:
        """A handle of the folder; with ``create`` it is made, and its place in its parents is durable."""
        handle = os.open(".", _FOLDER, dir_fd=self._root)
        at = ""
        try:
            for part in folder.split("/") if folder else ():
                parent, parent_name = handle, at
                at = f"{at}/{part}" if at else part
                if create and at not in self._known:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, _FOLDER_MODE, dir_fd=parent)
                    # Also if it was there: another writer may have made it a moment ago, and not yet synced it.
                    self._syncs.sync(parent_name, parent)
                try:
                    handle = os.open(part, _FOLDER, dir_fd=parent)
                except NotADirectoryError:
                    # An object has no objects below it; a link (which says the same here) is nothing of ours.
                    if not create and stat.S_ISREG(os.stat(part, dir_fd=parent, follow_symlinks=False).st_mode):
                        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), at) from None
                    raise
                os.close(parent)
                if create:
                    self._known.add(at)
        except FileNotFoundError:
            os.close(handle)
            if create and at in self._known:
                self._known.clear()  # somebody removed folders: make them again
                return self._open_folder(folder, create=True)
            raise
        except BaseException:
            os.close(handle)
            raise
        return handle

    def _space(self) -> tuple[int, int]:
        try:
            status = os.fstatvfs(self._root)
        except OSError as error:
            raise self._failure(error, writing=False) from error
        return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize

    def _take_space(self, name: str, size: int) -> None:
        """Raises ``DeviceFull`` if an object of ``size`` bytes would eat the reserve."""
        size = -(-size // _BLOCK) * _BLOCK + _BLOCK
        with self._lock:
            if may_use_reserve(name):
                self._credit = max(0, self._credit - size)
                return
            if size <= self._credit:
                self._credit -= size
                return
            free, total = self._space()
            if not total:
                return
            room = free - size - int(total * RESERVE)
            if room < 0:
                self._credit = 0
                raise DeviceFull(device=self.device)
            # Others write as well: only a part of the room is spent before asking again.
            self._credit = min(SPACE_CHECK_BYTES, room // 4)


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise
    return True
