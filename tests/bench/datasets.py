"""What is backed up in a measurement: trees made from a seed, the same on every machine, and what changes in them."""

from __future__ import annotations

import os
import pathlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

MIB = 1024 * 1024
_WORDS = (
    b"order invoice customer address payment shipped returned warehouse ledger balance account session request response "
    b"timeout retry granted refused login logout upload download queue worker replica segment snapshot volume"
).split()
_EXTENSIONS = (".txt", ".log", ".json", ".xml", ".py", ".c", ".html", ".csv", ".jpg", ".png", ".pdf", ".gz")
_PACKED = frozenset({".jpg", ".png", ".pdf", ".gz"})
#: 2020-09-13, so that nothing is younger than the first backup.
_EPOCH_S = 1_600_000_000
_SMALL_PER_FOLDER = 20
#: A file is *large* for ``churn`` from here on: places in it change, it is not written anew.
_LARGE = 8 * MIB


@dataclass(frozen=True)
class Made:
    """What was made: regular files and their bytes."""

    files: int
    bytes: int


def make(kind: str, folder: pathlib.Path, *, scale: float = 1.0, seed: int = 1) -> Made:
    """Makes the tree ``kind`` (large, small, mixed) below ``folder``, which must not exist."""
    folder.mkdir(parents=True)
    if kind == "large":
        _large(folder, max(MIB, round(2048 * MIB * scale)), seed)
    elif kind == "small":
        _small(folder, max(10, round(60_000 * scale)), seed)
    elif kind == "mixed":
        _large(folder / "machines", max(MIB, round(768 * MIB * scale)), seed + 100)
        _small(folder / "home", max(10, round(20_000 * scale)), seed + 100)
    else:
        raise ValueError(kind)
    return count(folder)


def count(folder: pathlib.Path) -> Made:
    """Regular files below ``folder``."""
    sizes = [os.lstat(path).st_size for path in _files(folder)]
    return Made(len(sizes), sum(sizes))


def _files(folder: pathlib.Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            yield os.path.join(parent, name)


def _text(rng: random.Random, size: int) -> bytes:
    """Lines as of a log: zstd makes about a fourth of them."""
    lines = []
    length = 0
    while length < size:
        words = b" ".join(rng.choices(_WORDS, k=7))
        line = b"%08x %05d %s=%d %s\n" % (
            rng.getrandbits(32),
            rng.randrange(9999),
            words[:9],
            rng.randrange(999),
            words,
        )
        lines.append(line)
        length += len(line)
    return b"".join(lines)[:size]


def _long_text(rng: random.Random, pool: list[bytes], size: int) -> bytes:
    """As ``_text``, quickly: runs of lines of a pool, each line with a number that does not come again."""
    parts = []
    length = 0
    while length < size:
        start = rng.randrange(len(pool) - 40)
        mark = b"\n%x " % rng.getrandbits(48)
        part = mark.join(pool[start : start + 12])
        parts.append(part)
        length += len(part) + 1
    return b"\n".join(parts)[:size]


def _large(folder: pathlib.Path, size: int, seed: int) -> None:
    """Eight files (logs, videos, disk images, images that repeat) of ``size`` bytes together."""
    folder.mkdir(exist_ok=True)
    rng = random.Random(f"large-{seed}")
    again = rng.randbytes(24 * MIB)
    pool = _text(rng, 2 * MIB).split(b"\n")
    count = max(1, min(8, size // (8 * MIB)))
    for number in range(count):
        rng = random.Random(f"large-{seed}-{number}")
        name, choices = (
            ("access.log", "t"),
            ("film.mp4", "r"),
            ("disk.vmdk", "trz"),
            ("nightly.img", "traaa"),
        )[number % 4]
        path = folder / f"{number:02d}-{name}"
        left = size // count
        with path.open("wb") as file:
            while left:
                length = min(left, rng.randrange(4 * MIB, 12 * MIB))
                choice = rng.choice(choices)
                if choice == "t":
                    block = _long_text(rng, pool, length)
                elif choice == "r":
                    block = rng.randbytes(length)
                elif choice == "z":
                    block = bytes(length)
                else:
                    start = rng.randrange(len(again) - length)
                    block = again[start : start + length]
                file.write(block)
                left -= len(block)
        os.utime(path, ns=(_time_ns(rng), _time_ns(rng)))


def _small(folder: pathlib.Path, files: int, seed: int) -> None:
    """Files of 0 to 32 KiB, about 8 KiB in the middle, twenty in a folder, three of four compressible."""
    folder.mkdir(exist_ok=True)
    rng = random.Random(f"small-{seed}")
    text, packed = _text(rng, 4 * MIB), rng.randbytes(4 * MIB)
    folders = [folder]
    for number in range(max(1, files // _SMALL_PER_FOLDER)):
        above = rng.choice(folders[-150:])
        if len(above.relative_to(folder).parts) > 8:
            above = folder
        below = above / f"{rng.choice(_WORDS).decode()}-{number}"
        below.mkdir()
        folders.append(below)
    for number in range(files):
        extension = rng.choice(_EXTENSIONS)
        size = 0 if rng.random() < 0.02 else int(512 * 2 ** (6 * rng.random()))
        source = packed if extension in _PACKED else text
        start = rng.randrange(len(source) - 40_000)
        path = rng.choice(folders) / f"{rng.choice(_WORDS).decode()}-{number:06d}{extension}"
        path.write_bytes((b"%d\n" % number + source[start : start + size])[:size])
        path.chmod(rng.choice((0o644, 0o644, 0o600, 0o755)))
        os.utime(path, ns=(_time_ns(rng), _time_ns(rng)))


def _time_ns(rng: random.Random) -> int:
    return (_EPOCH_S + rng.randrange(10**8)) * 10**9 + rng.randrange(10**9)


def churn(folder: pathlib.Path, *, round: int, fraction: float = 0.02, seed: int = 1) -> dict[str, int]:
    """Changes about ``fraction`` of the small files (written anew, longer, renamed, gone, new, another mode) and, of
    large files, about as many of their bytes in scattered places; some of them with bytes put in between."""
    rng = random.Random(f"churn-{seed}-{round}")
    small, large = [], []
    for path in _files(folder):
        (large if os.lstat(path).st_size > _LARGE else small).append(path)
    done: dict[str, int] = {}
    chosen = rng.sample(small, max(6, int(len(small) * fraction))) if len(small) > 6 else []
    for number, path in enumerate(chosen):
        what = ("rewrite", "append", "rename", "delete", "create", "chmod")[number % 6]
        done[what] = done.get(what, 0) + 1
        _change(rng, path, what, f"{round}-{number}")
    for number, path in enumerate(large):
        what = ("places", "insert", "append")[number % 3]
        done[f"large-{what}"] = done.get(f"large-{what}", 0) + 1
        _change_large(rng, path, what, fraction)
    return done


def _change(rng: random.Random, path: str, what: str, mark: str) -> None:
    fresh = rng.randbytes(rng.randrange(64, 4096))
    if what == "delete":
        os.unlink(path)
    elif what == "rename":
        os.rename(path, f"{path}.{mark}")
    elif what == "chmod":
        os.chmod(path, os.stat(path).st_mode ^ 0o044)
    elif what == "create":
        pathlib.Path(os.path.dirname(path), f"new-{mark}").write_bytes(fresh)
    else:
        with open(path, "ab" if what == "append" else "wb") as file:
            file.write(fresh)


def _change_large(rng: random.Random, path: str, what: str, fraction: float) -> None:
    size = os.path.getsize(path)
    share = max(1, int(size * fraction))
    if what == "append":
        with open(path, "ab") as file:
            file.write(rng.randbytes(share))
        return
    if what == "insert":
        at = size // 3 + rng.randrange(4096)
        other = f"{path}.other"
        with open(path, "rb") as file, open(other, "wb") as new:
            os.sendfile(new.fileno(), file.fileno(), 0, at)
            new.seek(0, os.SEEK_END)
            new.write(rng.randbytes(rng.randrange(1000, 60_000)))
            new.flush()
            done = at
            while done < size:
                done += os.sendfile(new.fileno(), file.fileno(), done, size - done)
        os.replace(other, path)
    with open(path, "r+b") as file:
        for _ in range(10):
            file.seek(rng.randrange(max(1, size - MIB)))
            file.write(rng.randbytes(share // 10))


def one_file(folder: pathlib.Path) -> str:
    """A file to restore alone, relative to ``folder``: the middle one in path order of those below 64 MiB, or of
    all."""
    paths = list(_files(folder))
    small = [path for path in paths if os.path.getsize(path) < 64 * MIB]
    chosen = small or paths
    return os.path.relpath(chosen[len(chosen) // 2], folder)
