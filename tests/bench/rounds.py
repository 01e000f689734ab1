"""Interleaved rounds: each phase by every product in turn, the order rotating, each round with fresh stores.

Nothing with many files is removed before all is measured: ext4 does not use an inode again for the first minutes after
its file went, and looks at each such inode whenever it makes a file. Whoever restores after somebody else's removal
pays for that, up to ten times as much as the restore itself.

What was restored, and whole rounds that are over, do not stay in memory either, and free memory is compacted: where it
is full, or lies in single pages, whoever writes pays for that (``cp`` of 2 GB four times as much).
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import pathlib
import shutil
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench import datasets
from bench.metering import CommandFailed, Measured, Meter
from bench.products import Product

#: What is measured, in this order. ``first`` and ``churn`` also tell what is stored.
PHASES = ("first", "unchanged", "churn", "restore", "one-file", "verify")

#: Up to so many files a round is removed as soon as it has been measured.
_FEW = 1000


@dataclass
class Series:
    """All rounds of one product."""

    measured: dict[str, list[Measured]] = field(default_factory=dict)
    stored: dict[str, list[int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, phase: str, measured: Measured) -> None:
        self.measured.setdefault(phase, []).append(measured)


def measure(
    kind: str,
    products: Sequence[type[Product]],
    folder: pathlib.Path,
    *,
    scale: float,
    rounds: int,
    phases: Sequence[str] = PHASES,
    seed: int = 1,
    tell: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
) -> tuple[datasets.Made, dict[str, Series]]:
    """What the tree ``kind`` costs each product. ``folder`` needs room for two trees per product and round of many
    files, or in all of large ones; what is left there is the caller's to remove."""
    source = folder / "source"
    made = datasets.make(kind, source, scale=scale, seed=seed)
    tell(f"{kind}: {made.files} files, {made.bytes / 1e6:.0f} MB")
    series = {product.name: Series() for product in products}
    for round_ in range(rounds):
        rotated = [*products[round_ % len(products) :], *products[: round_ % len(products)]]
        below = folder / f"round-{round_}"
        _round(rotated, series, below, source, round_, phases, tell)
        if made.files < _FEW:
            shutil.rmtree(below)
        else:
            os.sync()
            _forget(below)
    return made, series


def _round(
    kinds: Sequence[type[Product]],
    series: dict[str, Series],
    folder: pathlib.Path,
    source: pathlib.Path,
    round_: int,
    phases: Sequence[str],
    tell: Callable[[str], None],
) -> None:
    products = [kind(folder / str(number)) for number, kind in enumerate(kinds)]
    started: list[Product] = []
    try:
        for product in products:
            product.start()
            started.append(product)
        for phase in PHASES:
            if phase == "churn":
                datasets.churn(source, round=round_)
            if phase not in phases and phase != "first":
                continue
            one = datasets.one_file(source) if phase == "one-file" else ""
            for product in started:
                if phase not in product.without:
                    _phase(product, phase, series[product.name], source, one, check=round_ == 0, tell=tell)
    finally:
        for product in started:
            product.stop()


def _phase(
    product: Product,
    phase: str,
    series: Series,
    source: pathlib.Path,
    one: str,
    *,
    check: bool,
    tell: Callable[[str], None],
) -> None:
    target = product.folder / f"target-{phase}"
    target.mkdir()
    # what others have left to write must not be paid for here
    os.sync()
    _compact()
    try:
        with Meter(product.daemons()) as meter:
            restored = _do(product, phase, meter, source, one, target)
    except CommandFailed as error:
        series.problems.append(f"{phase}: {error}")
        tell(f"  {product.name:14} {phase:10} FAILED: {error}")
        return
    found = meter.measured
    series.add(phase, found)
    if phase in ("first", "churn"):
        series.stored.setdefault(phase, []).append(product.stored())
    tell(
        f"  {product.name:14} {phase:10} {found.wall_s:8.2f} s {found.cpu_s:8.2f} CPU s {found.peak_bytes / 1e6:6.0f} MB"
    )
    if check and restored is not None and "churn" not in product.without:
        series.problems.extend(f"{phase}: {line}" for line in differences(source, one, restored))
    os.sync()
    _forget(target)


def _compact() -> None:
    """Joins free pages, if this user may."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/sys/vm/compact_memory").write_text("1", "ascii")


def _forget(folder: pathlib.Path) -> None:
    """Gives the pages of its files, which are written, back to the kernel."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _do(
    product: Product, phase: str, meter: Meter, source: pathlib.Path, one: str, target: pathlib.Path
) -> pathlib.Path | None:
    if phase == "restore":
        return product.restore(meter, source, target)
    if phase == "one-file":
        return product.restore_one(meter, source, one, target)
    if phase == "verify":
        product.verify(meter)
    else:
        product.backup(meter, source, PHASES.index(phase) + 1)
    return None


def differences(source: pathlib.Path, one: str, restored: pathlib.Path) -> list[str]:
    """How what was restored differs from its source: names, bytes, modes and times; at most ten."""
    filecmp.clear_cache()  # it remembers by size and time what it compared before
    if one:
        same = restored.is_file() and filecmp.cmp(source / one, restored, shallow=False)
        return [] if same else [f"{one} came back different"]
    found: list[str] = []
    before, after = _names(source), _names(restored)
    found.extend(f"{name} is missing" for name in sorted(before - after)[:5])
    found.extend(f"{name} was not there" for name in sorted(after - before)[:5])
    for name in sorted(before & after):
        if len(found) >= 10:
            break
        left, right = os.lstat(source / name), os.lstat(restored / name)
        if (left.st_mode, left.st_mtime_ns) != (right.st_mode, right.st_mtime_ns):
            found.append(f"mode or time of {name}")
        if stat.S_ISREG(left.st_mode) and not filecmp.cmp(source / name, restored / name, shallow=False):
            found.append(f"bytes of {name}")
    return found


def _names(folder: pathlib.Path) -> set[str]:
    return {
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, folders, files in os.walk(folder)
        for name in (*folders, *files)
    }
