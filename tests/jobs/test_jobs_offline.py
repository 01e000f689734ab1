"""A device and a recovery kit are enough: sets are listed and restored with no mesh, no database and no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from job_site import CONTENT, ID_KEY
from job_trees import make_tree
from msgspec import structs

from caso_mesh.cli.program import run_inside
from caso_mesh.devices.folder import FolderBackend
from caso_mesh.identity import kit as kits
from caso_mesh.identity.kit import Kit
from caso_mesh.identity.mesh_copy import MeshCopy, attest
from caso_mesh.jobs import messages as say
from caso_mesh.jobs.desk import Desk
from caso_mesh.jobs.offline import open_offline, restore_offline
from caso_mesh.jobs.perform import Tools, perform
from caso_mesh.jobs.worker import SystemClock
from caso_mesh.model.errors import Ambiguous, DeviceVanished, KitForeign, KitIncomplete, NotFound, TargetInvalid
from caso_mesh.model.states import AttemptState
from caso_mesh.sealing.passphrase import Cost
from caso_mesh.sources.compare import differences
from caso_mesh.vault.keys import add_recipients
from caso_mesh.vault.names import FORMAT
from caso_mesh.vault.objects import VaultKeys

CLOCK = SystemClock()
KEYS = VaultKeys(id_key=ID_KEY, content_keys=CONTENT, write_key="k1")


def nobody(*_):
    raise AssertionError("nobody is met: files and device are on one server")


def backup(site, tree, **options):
    """A backup in this process, without any daemon; the set."""
    heard = []

    def hear(message):
        heard.append(message)
        if isinstance(message, say.MayPublish):
            desk.hear(say.Publish())

    task = site.task(site.backup_spec(tree, **options))
    desk = Desk(task.order.attempt, hear, CLOCK)
    perform(task, desk, Tools(meet=nobody))
    (ended,) = [message for message in heard if isinstance(message, say.Ended)]
    assert ended.state is AttemptState.SUCCEEDED, heard
    (published,) = [message for message in heard if isinstance(message, say.Published)]
    return published.set


@pytest.fixture
def kit(site):
    made = Kit(
        id="k" * 26, mesh="mesh", mesh_name="mesh", root=site.authority.root,
        root_key=site.authority.root_key_bytes(), id_key=ID_KEY, private_key=os.urandom(32), created_at_ns=1,
    )  # fmt: skip
    with device(site) as backend:
        add_recipients(backend, KEYS, {made.id: made.public_key})
    return made


@contextmanager
def device(site):
    backend = FolderBackend(str(site.device), "disk", marker=FORMAT)
    try:
        yield backend
    finally:
        backend.close()


def restored(site, kit, set_id, out, **options):
    with open_offline(str(site.device), kit) as opened:
        done = restore_offline(opened, opened.set(set_id), str(out), clock=CLOCK, **options)
        return done, opened.problems()


def same(tree, out):
    return list(differences(os.fsencode(tree), os.fsencode(out) + os.fsencode(tree), holes=True))


def test_a_set_comes_back_as_it_was(site, kit, tmp_path):
    tree = make_tree(tmp_path / "tree")
    made = backup(site, tree)
    done, _ = restored(site, kit, made.id[:12], tmp_path / "out")
    assert (done.exceptions, done.counts.files) == ((), made.files)
    assert same(tree, tmp_path / "out") == []


def test_parts_of_a_set_come_back_alone(site, kit, tmp_path):
    tree = make_tree(tmp_path / "tree")
    made = backup(site, tree)
    done, _ = restored(site, kit, made.id, tmp_path / "out", paths=[os.fsencode(tree / "a")], strip=True)
    assert done.exceptions == ()
    assert not (tmp_path / "out" / "large").exists()
    assert list(differences(os.fsencode(tree / "a"), os.fsencode(tmp_path / "out" / "a"))) == []


def test_a_damaged_pack_costs_its_files_and_they_are_named(site, kit, tmp_path):
    tree = make_tree(tmp_path / "tree", large=80 << 20)
    made = backup(site, tree)
    packs = sorted((site.device / "packs" / "d").glob("*/*"), key=lambda each: -each.stat().st_size)
    assert len(packs) >= 2
    broken = bytearray(packs[0].read_bytes())
    for at in range(4096, len(broken), 1 << 20):
        broken[at] ^= 0xFF
    packs[0].chmod(0o600)
    packs[0].write_bytes(broken)
    done, _ = restored(site, kit, made.id, tmp_path / "out")
    lost = {os.fsdecode(each.path) for each in done.exceptions}
    assert lost
    assert {each.reason for each in done.exceptions} == {"damaged"}
    missing = same(tree, tmp_path / "out")
    assert missing
    for line in missing:  # whatever differs was named, but for times of folders
        assert any(repr(os.path.relpath("/" + path, tree))[1:-1] in line for path in lost), line


def test_packs_whose_index_was_lost_are_read_by_their_own_tables(site, kit, tmp_path):
    tree = make_tree(tmp_path / "tree")
    made = backup(site, tree)
    for segment in (site.device / "index").glob("*/*"):
        segment.unlink()
    done, _ = restored(site, kit, made.id, tmp_path / "out")
    assert done.exceptions == ()
    assert same(tree, tmp_path / "out") == []


def test_a_kit_of_another_mesh_is_refused(site, kit, tmp_path):
    backup(site, make_tree(tmp_path / "tree"))
    with pytest.raises(KitForeign), open_offline(str(site.device), structs.replace(kit, mesh="other")):
        pass


def test_a_kit_without_a_key_for_the_device_says_so(site, kit, tmp_path):
    backup(site, make_tree(tmp_path / "tree"))
    with pytest.raises(KitIncomplete), open_offline(str(site.device), structs.replace(kit, id="other")):
        pass


def test_a_folder_without_a_vault_is_no_device(kit, tmp_path):
    with pytest.raises(DeviceVanished), open_offline(str(tmp_path), kit):
        pass


def test_a_set_that_is_not_there_is_not_found(site, kit, tmp_path):
    tree = make_tree(tmp_path / "tree")
    backup(site, tree)
    backup(site, tree)
    with open_offline(str(site.device), kit) as opened:
        with pytest.raises(NotFound):
            opened.set("zzz")
        with pytest.raises(Ambiguous):
            opened.set(opened.sets()[0].id[:1])  # ids begin with the time
        assert [each.started_at_ns for each in opened.sets()] == sorted(each.started_at_ns for each in opened.sets())


def test_nothing_is_restored_into_the_device_itself(site, kit, tmp_path):
    made = backup(site, make_tree(tmp_path / "tree"))
    (tmp_path / "way").symlink_to(site.device)
    for inside in (site.device, site.device / "packs", tmp_path / "way" / "new"):
        with pytest.raises(TargetInvalid):
            restored(site, kit, made.id, inside)
    assert not (site.device / "new").exists()


def test_the_vault_is_left_as_it_was(site, kit, tmp_path):
    made = backup(site, make_tree(tmp_path / "tree"))
    before = {path: path.stat().st_mtime_ns for path in site.device.rglob("*")}
    restored(site, kit, made.id, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in site.device.rglob("*")} == before


def test_signatures_are_checked_by_the_newest_copy_of_the_mesh(site, kit, tmp_path):
    from caso_mesh.control.state import ControlState
    from caso_mesh.control.tables import Put
    from caso_mesh.model.mesh import MeshInfo, Server
    from caso_mesh.model.orders import Authority as Place
    from caso_mesh.vault.mesh_copies import put_copy, seal_copy

    made = backup(site, make_tree(tmp_path / "tree"))
    with open_offline(str(site.device), kit) as opened:
        assert any("could not be checked" in line for line in (*map(str, opened.sets()), *opened.problems()))

    def keep(public_key):
        state = ControlState()
        row = Server(
            name="alpha", id=site.alpha.id, public_key=public_key, encryption_key=bytes(32), wrapped_id_key=b"",
            joined_at_ns=1,
        )  # fmt: skip
        state.write([Put("mesh", "", MeshInfo("mesh", "mesh", 1)), Put("servers", row.id, row)])
        signing, encryption = site.admin.to_bytes()
        copy = MeshCopy(
            mesh="mesh", mesh_name="mesh", made_at_ns=1, place=Place(1, 1, 1), control=state.snapshot(),
            admin=site.admin.id, admin_name="admin", signing_key=signing, encryption_key=encryption,
            root=site.authority.root, issuing=site.authority.issuing, issuing_key=site.authority.issuing_key_bytes(),
        )  # fmt: skip
        sealed = seal_copy(
            attest(copy, site.authority, ()), {kit.id: kit.public_key}, mesh="mesh", randomness=os.urandom
        )
        with device(site) as backend:
            put_copy(backend, sealed)

    keep(site.alpha.keys.public_key)
    with open_offline(str(site.device), kit) as opened:
        assert [each.id for each in opened.sets()] == [made.id]
        assert opened.problems() == []
    keep(site.beta.keys.public_key)  # no key of alpha's: its id says which one is
    with open_offline(str(site.device), kit) as opened:
        assert [each.id for each in opened.sets()] == [made.id]
        assert any("could not be checked" in line for line in opened.problems())


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def files(kit, tmp_path):
    path, passphrase = tmp_path / "kit", tmp_path / "passphrase"
    passphrase.write_text("a passphrase\nnot this line\n")
    kits.write(path, kits.encode(kit, "a passphrase", cost=Cost(memory_kib=64, iterations=1, lanes=1)))
    return ["--kit", str(path), "--passphrase-file", str(passphrase)]


async def test_the_commands_list_and_restore(site, kit, files, tmp_path, capsys):
    tree = make_tree(tmp_path / "tree")
    made = backup(site, tree)
    assert await run_inside(["vault", "list", str(site.device), *files, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["sets"]
    assert (row["id"], row["source"], row["files"], row["roots"]) == (made.id, "alpha", made.files, [str(tree)])
    argv = ["vault", "restore", str(site.device), *files, made.id, "--to", str(tmp_path / "out"), "--json"]
    assert await run_inside(argv) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["state"], answer["files"], answer["exceptions"]) == ("succeeded", made.files, [])
    assert same(tree, tmp_path / "out") == []
    assert await run_inside(["vault", "list", str(site.device), *files]) == 0
    assert made.id in capsys.readouterr().out


async def test_a_restore_with_losses_ends_with_seven_and_names_them(site, kit, files, tmp_path, capsys):
    tree = make_tree(tmp_path / "tree", large=1 << 20, small=3)
    made = backup(site, tree)
    for pack in (site.device / "packs" / "d").glob("*/*"):
        broken = bytearray(pack.read_bytes())
        broken[len(broken) // 3] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(broken)
    argv = ["vault", "restore", str(site.device), *files, made.id, "--to", str(tmp_path / "out"), "--json"]
    assert await run_inside(argv) == 7
    answer = json.loads(capsys.readouterr().out)
    assert answer["state"] == "succeeded-with-exceptions"
    assert str(tree / "large") in {each["path"] for each in answer["exceptions"]}
    assert (tmp_path / "out" / str(tree)[1:] / "link").is_symlink()


async def test_a_wrong_passphrase_a_cut_kit_and_no_kit_are_told_apart(site, kit, files, tmp_path, capsys):
    path = tmp_path / "kit"
    (tmp_path / "passphrase").write_text("another one\n")
    assert await run_inside(["vault", "list", str(site.device), *files, "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "passphrase-wrong"
    path.write_bytes(path.read_bytes()[:-100])
    assert await run_inside(["vault", "list", str(site.device), *files, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "kit-damaged"
    path.unlink()
    assert await run_inside(["vault", "list", str(site.device), *files, "--json"]) == 5
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "kit-missing"


async def test_without_a_terminal_and_without_a_file_nobody_is_asked(site, kit, files, capsys):
    assert await run_inside(["vault", "list", str(site.device), *files[:2], "--json"]) == 2
    assert "passphrase-file" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_the_command_opens_no_database_and_no_connection(site, kit, files, tmp_path):
    """In a process of its own, where databases and sockets cannot be had."""
    made = backup(site, make_tree(tmp_path / "tree"))
    script = (
        "import sys, socket, sqlite3\n"
        "def no(*_, **__): raise SystemExit('forbidden')\n"
        "socket.socket = sqlite3.connect = no\n"
        "from caso_mesh.cli.program import run\n"
        "status = run(sys.argv[1:])\n"
        "bad = {'aiohttp', 'aiosqlite', 'zeroconf'} & set(sys.modules)\n"
        "raise SystemExit(status or (f'imported {bad}' if bad else 0))\n"
    )
    argv = ["vault", "restore", str(site.device), *files, made.id, "--to", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert same(tmp_path / "tree", tmp_path / "out") == []
