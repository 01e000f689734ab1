"""Small file systems to break: what a device stands on."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

MEBIBYTE = 1024 * 1024
#: ``mount(kind, folder)``: a small file system there; kind "ext4" or "btrfs" (a loop device on an image beside it), "tmpfs".
Mounter = Callable[..., pathlib.Path]


def run(*argv: str) -> None:
    """Runs a program that must succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"


def _why_not() -> str | None:
    if os.geteuid() != 0:
        return "mounting needs root"
    if shutil.which("mount") is None or shutil.which("mkfs.ext4") is None:
        return "mounting needs util-linux and e2fsprogs"
    done = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False
    )
    return f"mounting is not allowed here: {done.stderr.strip()}" if done.returncode else None


def _why_no_btrfs() -> str | None:
    if "\tbtrfs\n" not in pathlib.Path("/proc/filesystems").read_text("ascii"):
        return "this kernel has no btrfs"
    return None if shutil.which("mkfs.btrfs") else "btrfs needs btrfs-progs"


def image_of(folder: pathlib.Path) -> pathlib.Path:
    """The file in which the file system at ``folder`` lies."""
    return folder.with_name(f"{folder.name}.img")


@pytest.fixture
def mount() -> Iterator[Mounter]:
    """Ask for it before ``process_mesh``, so that the daemons end first."""
    reason = _why_not()
    if reason:
        pytest.skip(reason)
    points: list[pathlib.Path] = []

    def make(kind: str, folder: pathlib.Path, *, size: int = 64 * MEBIBYTE) -> pathlib.Path:
        folder.mkdir(exist_ok=True)
        if kind == "tmpfs":
            run("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder))
        elif kind == "btrfs":
            reason = _why_no_btrfs()
            if reason:
                pytest.skip(reason)
            with image_of(folder).open("wb") as file:
                file.truncate(max(size, 256 * MEBIBYTE))
            run("mkfs.btrfs", "-q", str(image_of(folder)))
            run("mount", "-o", "loop", str(image_of(folder)), str(folder))
        else:
            if not image_of(folder).exists():
                with image_of(folder).open("wb") as file:
                    file.truncate(size)
                options = ["-q", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1"]
                run("mkfs.ext4", *options, str(image_of(folder)))
            run("mount", "-o", "loop", str(image_of(folder)), str(folder))
        points.append(folder)
        return folder

    yield make
    for point in reversed(points):
        # A test may have unmounted it already.
        subprocess.run(["umount", "-l", str(point)], capture_output=True, check=False)
