"""A daemon of a plain user: what such a user can read and write is kept, the rest is told path by path."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from mesh.person import Person
from mesh.process import ProcessMesh, running_mesh
from mesh.trees import make_tree

from caso_mesh.sources.compare import differences


@pytest.fixture
def person() -> Iterator[Person]:
    """With a home that this user can reach, as the folders of pytest cannot be."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="caso-mesh-plain-"))
    home.chmod(0o755)
    person = Person("nobody", home)
    try:
        if reason := person.absent():
            pytest.skip(reason)
        person.give(home)
        yield person
    finally:
        shutil.rmtree(home)


def give_all(person: Person, root: pathlib.Path) -> None:
    """The tree is that user's, as far as set-id bits go too."""
    for folder, folders, files in os.walk(root):
        for path in [folder, *(os.path.join(folder, name) for name in (*folders, *files))]:
            mode = os.lstat(path).st_mode
            os.chown(path, *person.ids, follow_symlinks=False)
            if not os.path.islink(path):
                os.chmod(path, mode & 0o7777)


def nasty_tree(person: Person) -> pathlib.Path:
    """Files of this user, among them some it may not read; and files of others in its folders."""
    tree = make_tree(person.home / "data", files=200)
    give_all(person, tree)
    closed = tree / "closed"
    closed.mkdir()
    for name in ("unread", "written"):
        (closed / name).write_text(name)
        person.give(closed / name)
    (closed / "unread").chmod(0)
    (closed / "written").chmod(0o222)
    (closed / "folder").mkdir()
    (closed / "folder" / "inner").write_text("nobody sees it")
    (closed / "folder").chmod(0)
    person.give(closed, closed / "folder")
    (closed / "of root").write_text("anybody may read it")
    (closed / "of root").chmod(0o4755)
    (closed / "of root alone").write_text("secret")
    (closed / "of root alone").chmod(0o600)
    os.mknod(closed / "device", 0o020666, os.makedev(1, 3))
    return tree


def test_a_daemon_of_a_plain_user_keeps_what_it_can_and_names_the_rest(person):
    tree = nasty_tree(person)
    disk, back = person.home / "disk", person.home / "back"
    disk.mkdir()
    back.mkdir()
    person.give(disk, back)
    with running_mesh(person.home / "mesh", python=person.python()) as mesh:
        _own(person, mesh)
        mesh.start(1)
        mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(disk))
        made = mesh.cli("alpha", "backup", f"alpha:{tree}", "--to", "device:disk", "--wait")
        assert made.status == 7
        closed = f"{tree}/closed"
        unread = [f"{closed}/{name}" for name in ("folder", "of root alone", "unread", "written")]
        assert sorted(each["path"] for each in made.document["exceptions"]) == unread
        assert {each["reason"].partition(":")[0] for each in made.document["exceptions"]} == {"permission-denied"}

        restored = mesh.cli("alpha", "restore", made.document["set"], "--to", f"alpha:{back}", "--strip", "--wait")
        assert restored.status == 7
        told = {(each["path"], each["reason"].partition(":")[0]) for each in restored.document["exceptions"]}
        assert told == {(f"{closed}/device", "permission-denied"), (f"{closed}/of root", "owner-not-restored")}

    lost = sorted(differences(os.fsencode(tree), os.fsencode(back)))
    assert lost == sorted(
        [
            "missing: 'closed/device'",
            "missing: 'closed/folder/inner'",
            "missing: 'closed/of root alone'",
            "missing: 'closed/unread'",
            "missing: 'closed/written'",
            "mode of 'closed/of root': 0o4755, 0o755",
            f"owner of 'closed/of root': 0:0, {person.ids[0]}:{person.ids[1]}",
        ]
    )


def _own(person: Person, mesh: ProcessMesh) -> None:
    """The folders of a mesh that root has made are this user's."""
    person.give(mesh.folder, mesh.folder / "home", mesh.folder / "logs")
