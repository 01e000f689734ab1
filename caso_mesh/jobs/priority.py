"""How much this process, and what it starts, gives way to others: for the processor and for disks."""

from __future__ import annotations

import ctypes
import os
import platform

from caso_mesh.model.bandwidth import NONE

#: ioprio_set(2) has no function in C libraries; its number differs by machine.
_IOPRIO_SET = {
    "x86_64": 251,
    "i686": 289,
    "aarch64": 30,
    "riscv64": 30,
    "loongarch64": 30,
    "armv7l": 314,
    "ppc64le": 273,
    "s390x": 282,
}
_WHO_PROCESS, _CLASS_SHIFT = 1, 13
_BEST_EFFORT, _IDLE = 2, 3
_LIBC = ctypes.CDLL(None, use_errno=True)


def give_way(nice: int, ionice: str) -> list[str]:
    """Sets both for this thread and for all that it begins from now on; what could not be set, as sentences.

    ``nice`` as in nice(2), never less than what is set already; ``ionice`` as the setting ``worker-ionice`` has it.
    """
    problems = []
    if nice > os.getpriority(os.PRIO_PROCESS, 0):
        try:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
        except OSError as error:
            problems.append(f"worker-nice {nice} could not be set: {error.strerror}")
    if ionice != NONE:
        problem = _give_way_on_disks(ionice)
        if problem:
            problems.append(f"worker-ionice {ionice} could not be set: {problem}")
    return problems


def _give_way_on_disks(ionice: str) -> str:
    kind, _, level = ionice.rpartition("-")
    if ionice == "idle":
        wanted = _IDLE << _CLASS_SHIFT
    elif kind == "best-effort" and level in set("01234567"):
        wanted = _BEST_EFFORT << _CLASS_SHIFT | int(level)
    else:
        return "this version does not know it"
    number = _IOPRIO_SET.get(platform.machine()) if platform.system() == "Linux" else None
    if number is None:
        return f"it is not known how to on {platform.system()} {platform.machine()}"
    if _LIBC.syscall(number, _WHO_PROCESS, 0, wanted) == -1:
        return os.strerror(ctypes.get_errno())
    return ""
