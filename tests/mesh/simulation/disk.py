"""Disks of simulated servers: a state folder as it lies there at an instant, with what a loss of power takes of it."""

from __future__ import annotations

import random
import shutil
import struct
from pathlib import Path

#: Databases whose last commits may be lost with the power (``durable=False``).
NOT_SYNCED = ("tables/tables.db", "catalog/catalog.db")
#: WAL format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log, and the shared index beside it.
_WAL_HEADER, _FRAME_HEADER = 32, 24
_MX_FRAME, _BACKFILLED = 16, 96
#: Files whose names nobody syncs: they may be gone when the power is back.
UNNAMED = "catalog/segments/*"
_LOST = 0.25


def copy_state(state: Path, to: Path) -> None:
    """As the file system has it now. Between two turns of the loop no transaction is half written."""
    shutil.copytree(state, to, ignore=shutil.ignore_patterns("*-shm", "lock", "reserve", "endpoint"), symlinks=True)


def lose_power(state: Path, copy: Path, rng: random.Random) -> None:
    """Takes from ``copy``, made of ``state`` just now, commits at the end of what is not synced at each one: some, all or
    none; what was moved into the database file by a checkpoint had been synced before. And some files whose names were
    not synced."""
    for name in NOT_SYNCED:
        wal = copy / f"{name}-wal"
        index = state / f"{name}-shm"
        if not wal.exists() or not index.exists() or wal.stat().st_size <= _WAL_HEADER:
            continue
        shared = index.read_bytes()
        (frames,) = struct.unpack_from("=I", shared, _MX_FRAME)
        (backfilled,) = struct.unpack_from("=I", shared, _BACKFILLED)
        with wal.open("rb") as file:
            (page,) = struct.unpack_from(">I", file.read(_WAL_HEADER), 8)
        if frames <= backfilled:
            continue
        kept = rng.choice([frames, backfilled, rng.randint(backfilled, frames)])
        with wal.open("r+b") as file:
            file.truncate(_WAL_HEADER + kept * (_FRAME_HEADER + page))
    for path in sorted(copy.glob(UNNAMED)):
        if rng.random() < _LOST:
            path.unlink()
