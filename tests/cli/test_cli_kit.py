"""Making a recovery kit: what leaves this machine, what is written, and when the root key may go."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from cli_world import FakeDaemon, Shell, material

from caso_mesh.cli import passphrase
from caso_mesh.identity import kit as kits
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import NoAdmin, RootKeyGone
from caso_mesh.sealing.passphrase import Cost

ID_KEY = b"i" * 32
MESH = "m" * 26


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    seal = kits.seal_with_passphrase

    def quick(*args: Any, **options: Any) -> bytes:
        return seal(*args, **{**options, "cost": Cost(memory_kib=64, iterations=1, lanes=1)})

    monkeypatch.setattr(kits, "seal_with_passphrase", quick)


class Admin:
    """An administrator that hands over secrets."""

    def __init__(self, daemon: FakeDaemon, *, root_key: bytes | None = None) -> None:
        authority = material().authority
        self.root_key = authority.root_key_bytes() if root_key is None else root_key
        self.confirmed: list[q.KitConfirm] = []
        daemon.answers["kit.create"] = self.create
        daemon.answers["kit.confirm"] = self.confirm
        self.root = authority.root

    def create(self, request: q.KitCreate) -> q.KitMaterial:
        self.secrets = kits.Secrets(self.root_key if request.with_root_key else b"", ID_KEY)
        sealed = kits.seal_secrets(
            self.secrets, kit=request.id, public_key=request.public_key, mesh=MESH, randomness=os.urandom
        )
        return q.KitMaterial(MESH, "tests", self.root, sealed, ("disk1",), ("disk2",))

    def confirm(self, request: q.KitConfirm) -> v.KitView:
        self.confirmed.append(request)
        return v.KitView(request.id, "2025-01-01T00:00:00Z", "ann", "2025-01-01T00:00:01Z", ("disk1",), ("disk2",))


async def test_without_a_passphrase_one_is_made_and_shown_once(
    daemon: FakeDaemon, shell: Shell, tmp_path: Path
) -> None:
    admin, path = Admin(daemon), tmp_path / "kit"
    result = await shell("kit", "create", str(path))
    assert result.status == 0
    (made,) = re.findall(r"[0-9a-z]{5}(?:-[0-9a-z]{5,6}){4}", result.out)
    assert "disk2 cannot be reached" in result.err
    kit = kits.decode(path.read_bytes(), made)
    assert (kit.mesh, kit.id_key, kit.root_key) == (MESH, ID_KEY, admin.root_key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert admin.confirmed == [q.KitConfirm(kit.id, kits.check_of(admin.root, admin.secrets), True)]
    # the kit's private key and the passphrase stay here
    for each in daemon.received:
        assert kit.private_key not in repr(each.request).encode()
        assert made not in repr(each.request)


async def test_a_passphrase_of_a_file_is_not_shown(daemon: FakeDaemon, shell: Shell, tmp_path: Path) -> None:
    Admin(daemon)
    (tmp_path / "p").write_text("correct horse battery\n")
    result = await shell("kit", "create", str(tmp_path / "kit"), "--passphrase-file", str(tmp_path / "p"), "--json")
    assert result.document["passphrase"] is None
    assert "horse" not in result.out + result.err
    assert kits.decode((tmp_path / "kit").read_bytes(), "correct horse battery").mesh == MESH
    (tmp_path / "p").write_text("short\n")
    warned = await shell("kit", "create", str(tmp_path / "kit2"), "--passphrase-file", str(tmp_path / "p"))
    assert "guessed" in warned.err


async def test_a_person_is_asked_twice(
    daemon: FakeDaemon, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Admin(daemon)
    typed = iter(["one thing typed", "another thing", "the same thing", "the same thing"])
    monkeypatch.setattr(passphrase, "interactive", lambda: True)
    monkeypatch.setattr(passphrase.getpass, "getpass", lambda prompt: next(typed))
    result = await shell("kit", "create", str(tmp_path / "kit"))
    assert result.status == 0
    assert "They differ" in result.err
    assert kits.decode((tmp_path / "kit").read_bytes(), "the same thing").mesh == MESH


async def test_nothing_is_asked_of_the_mesh_for_a_file_that_cannot_be_written(
    daemon: FakeDaemon, shell: Shell, tmp_path: Path
) -> None:
    Admin(daemon)
    (tmp_path / "there").write_text("x")
    (tmp_path / "empty").write_text("\n")
    for argv, status in (
        ([str(tmp_path / "there")], 6),
        ([str(tmp_path / "no" / "kit")], 2),
        ([str(tmp_path / "kit"), "--passphrase-file", str(tmp_path / "none")], 2),
        ([str(tmp_path / "kit"), "--passphrase-file", str(tmp_path / "empty")], 2),
        ([str(tmp_path / "kit"), "--from", str(tmp_path / "none")], 5),
    ):
        assert (await shell("kit", "create", *argv, "--json")).status == status, argv
    assert daemon.received == []
    assert not (tmp_path / "kit").exists()


async def test_secrets_that_do_not_belong_to_the_root_are_not_confirmed(
    daemon: FakeDaemon, shell: Shell, tmp_path: Path
) -> None:
    admin = Admin(daemon, root_key=b"something else")
    result = await shell("kit", "create", str(tmp_path / "kit"), "--json")
    assert result.status == 1
    assert admin.confirmed == []
    assert not (tmp_path / "kit").exists()


async def test_a_kit_that_was_not_confirmed_is_kept_and_its_passphrase_told(
    daemon: FakeDaemon, shell: Shell, tmp_path: Path
) -> None:
    Admin(daemon)
    daemon.answers["kit.confirm"] = NoAdmin(server="alpha")
    result = await shell("kit", "create", str(tmp_path / "kit"), "--timeout", "1s")
    assert result.status == 3
    assert "not confirmed" in result.err
    (made,) = re.findall(r"[0-9a-z]{5}(?:-[0-9a-z]{5,6}){4}", result.err)
    assert kits.decode((tmp_path / "kit").read_bytes(), made).mesh == MESH


async def test_a_further_kit_takes_the_root_key_from_an_earlier_one(
    daemon: FakeDaemon, shell: Shell, tmp_path: Path
) -> None:
    admin = Admin(daemon)
    (tmp_path / "p").write_text("correct horse battery\n")
    first, second = tmp_path / "first", tmp_path / "second"
    given = ["--passphrase-file", str(tmp_path / "p")]
    assert (await shell("kit", "create", str(first), *given)).status == 0
    argv = [str(second), *given, "--from", str(first), "--from-passphrase-file", str(tmp_path / "p")]
    assert (await shell("kit", "create", *argv)).status == 0
    one, two = (kits.decode(path.read_bytes(), "correct horse battery") for path in (first, second))
    assert two.root_key == one.root_key
    assert (two.id, two.private_key) != (one.id, one.private_key)
    assert [each.with_root_key for each in admin.confirmed] == [True, False]
    daemon.answers["kit.create"] = RootKeyGone(server="alpha")
    refused = await shell("kit", "create", str(tmp_path / "third"), *given, "--json")
    assert (refused.status, refused.document["error"]["code"]) == (6, "root-key-gone")
