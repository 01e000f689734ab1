"""Trees to back up."""

from __future__ import annotations

import os


def make_tree(folder, *, large=3 << 20, small=300):
    folder.mkdir(parents=True)
    (folder / "a").mkdir()
    (folder / "a" / "small").write_bytes(b"small")
    (folder / "a" / "empty").write_bytes(b"")
    (folder / "large").write_bytes(os.urandom(large))
    with (folder / "sparse").open("wb") as file:
        file.seek(2 << 20)
        file.write(b"data behind a hole")
        file.truncate(5 << 20)
    (folder / "link").symlink_to("nowhere")
    os.link(folder / "a" / "small", folder / "second-name")
    os.mkfifo(folder / "fifo")
    (folder / os.fsdecode(b"not-utf8-\xff")).write_bytes(b"x")
    for number in range(small):
        (folder / "a" / f"f{number:04}").write_bytes(b"%d" % number * number)
    return folder
