"""Real files to back up."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import shutil

from caso_mesh.sources.compare import differences

#: Real files of this machine, taken along where it has them.
DOC = pathlib.Path("/usr/share/doc")
MEGABYTE = 1_000_000


def make_tree(root: pathlib.Path, *, files: int = 1500, seed: int = 1) -> pathlib.Path:
    """``files`` small files in some 60 folders, and one of each thing a tree can hold. Returns ``root``."""
    rng = random.Random(seed)
    words = [rng.randbytes(5).hex() for _ in range(4000)]
    root.mkdir(parents=True)
    folders = [root]
    for number in range(60):
        folder = rng.choice(folders) / f"folder-{number}"
        folder.mkdir()
        folders.append(folder)
    for number in range(files):
        path = rng.choice(folders) / f"file-{number}.txt"
        path.write_text(" ".join(rng.choices(words, k=rng.randrange(400))), "ascii")
        os.utime(path, ns=(1_600_000_000_000_000_000, 1_500_000_000_000_000_000 + rng.randrange(10**17)))
        path.chmod(rng.choice([0o644, 0o600, 0o640, 0o755, 0o4755, 0o444]))
    odd = root / "odd"
    odd.mkdir()
    (odd / "empty folder").mkdir(mode=0o711)
    (odd / "empty").touch()
    (odd / "hard").write_bytes(b"one inode, two names")
    os.link(odd / "hard", odd / "link")
    (odd / "symlink").symlink_to("hard")
    (odd / "dangling").symlink_to("nowhere/at all")
    os.mkfifo(odd / "fifo", 0o620)
    (odd / "line\nbreak \\ and ümläut").write_bytes(b"a name")
    with open(os.fsencode(odd) + b"/not utf-8 \xff\xfe", "wb") as file:
        file.write(b"bytes")
    with (odd / "sparse").open("wb") as file:
        file.seek(4 * MEGABYTE)
        file.write(b"after a hole")
    (odd / "large").write_bytes(rng.randbytes(3 * MEGABYTE))
    with contextlib.suppress(OSError):  # not every file system of a test machine keeps them
        os.setxattr(odd / "hard", "user.comment", b"kept \x00 too")
    if os.geteuid() == 0:
        os.chown(odd / "empty", 12345, 54321)
    real = sorted(DOC.iterdir())[:25] if DOC.is_dir() else []
    for each in real:
        with contextlib.suppress(OSError):
            if each.is_dir() and not each.is_symlink():
                shutil.copytree(each, root / "doc" / each.name, symlinks=True)
    return root


def make_large_tree(root: pathlib.Path, *, megabytes: int = 150, seed: int = 1) -> pathlib.Path:
    """Files that nothing shrinks or finds twice: a backup of them takes a while."""
    root.mkdir(parents=True)
    rng = random.Random(seed)
    for number in range(megabytes // 10):
        (root / f"large-{number}").write_bytes(rng.randbytes(10 * MEGABYTE))
    for number in range(200):
        (root / f"small-{number}").write_bytes(rng.randbytes(2000))
    return root


def assert_equal(one: pathlib.Path, two: pathlib.Path) -> None:
    """The trees are the same in content and all metadata (owners only as root: others cannot set them)."""
    found = []
    for line in differences(os.fsencode(one), os.fsencode(two), owner=os.geteuid() == 0, holes=False):
        found.append(line)
        if len(found) > 20:
            break
    assert not found, "\n".join(found)


def count_files(root: pathlib.Path) -> int:
    return sum(path.is_file() and not path.is_symlink() for path in root.rglob("*"))
