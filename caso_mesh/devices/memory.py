"""A device in memory, with the contract of the real ones and with faults on demand: for simulations and tests."""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from caso_mesh.devices.port import RESERVE, check_object_name, is_object_name, may_use_reserve
from caso_mesh.model.errors import CasoError, DeviceFull, Misuse, ObjectExists, ObjectMissing

# One lock for all: several backends may share one dictionary.
_LOCK = threading.RLock()


@dataclass
class _Fault:
    name_glob: str
    operation: str
    error: CasoError
    after: int
    times: int | None


class MemoryBackend:
    """Objects in ``shared`` (name to content), which several backends, as several servers, may hold.

    ``capacity`` is in bytes; None = without end. The reserve is kept as on a real device.
    """

    def __init__(
        self, shared: dict[str, bytes] | None = None, device: str = "memory", *, capacity: int | None = None
    ) -> None:
        self.objects: dict[str, bytes] = {} if shared is None else shared
        self.device = device
        self._capacity = capacity
        self._faults: list[_Fault] = []
        self._closed = False

    def fail(
        self, name_glob: str, error: CasoError, after: int = 0, *, operation: str = "*", times: int | None = None
    ) -> None:
        """Makes calls fail with ``error``: those whose name (of ``list``: its prefix; of ``space``: "") fits, once
        ``after`` of them have worked, ``times`` times (None: until ``heal``).

        ``operation`` is a glob as well: ``put``, ``get``, ``size``, ``list``, ``delete``, ``space``.
        """
        with _LOCK:
            self._faults.append(_Fault(name_glob, operation, error, after, times))

    def heal(self) -> None:
        """Ends all faults."""
        with _LOCK:
            self._faults.clear()

    def put(self, name: str, parts: Sequence[bytes | memoryview | bytearray]) -> None:
        check_object_name(name)
        with _LOCK:
            self._enter("put", name)
            if name in self.objects:
                raise ObjectExists(name=name)
            content = b"".join(parts)
            if self._capacity is not None:
                kept = 0 if may_use_reserve(name) else int(self._capacity * RESERVE)
                if self.space()[0] - len(content) < kept:
                    raise DeviceFull(device=self.device)
            self.objects[name] = content

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        with _LOCK:
            content = self._content("get", name)
        return content[offset:] if length is None else content[offset : offset + length]

    def size(self, name: str) -> int:
        with _LOCK:
            return len(self._content("size", name))

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        folder = prefix.rpartition("/")[0]
        if folder and not is_object_name(folder):
            raise Misuse(f"{prefix!r} is not the beginning of an object name")
        with _LOCK:
            self._enter("list", prefix)
            found = sorted((name, len(content)) for name, content in self.objects.items() if name.startswith(prefix))
        yield from found

    def delete(self, name: str) -> None:
        with _LOCK:
            self._content("delete", name)
            del self.objects[name]

    def space(self) -> tuple[int, int]:
        with _LOCK:
            self._enter("space", "")
            if self._capacity is None:
                return 1 << 50, 1 << 50
            return self._capacity - sum(map(len, self.objects.values())), self._capacity

    def close(self) -> None:
        self._closed = True

    def _content(self, operation: str, name: str) -> bytes:
        check_object_name(name)
        self._enter(operation, name)
        if name not in self.objects:
            raise ObjectMissing(name=name)
        return self.objects[name]

    def _enter(self, operation: str, name: str) -> None:
        if self._closed:
            raise Misuse("the device was closed")
        for fault in self._faults:
            if not fnmatch.fnmatchcase(name, fault.name_glob) or not fnmatch.fnmatchcase(operation, fault.operation):
                continue
            if fault.after:
                fault.after -= 1
            elif fault.times is None or fault.times > 0:
                if fault.times is not None:
                    fault.times -= 1
                raise fault.error
