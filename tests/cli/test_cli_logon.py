"""``caso-mesh logon``: the secret is sealed where it is typed, and is in nothing that leaves the command."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_world import FakeDaemon, Shell

from caso_mesh.identity.keys import NodeKeys
from caso_mesh.identity.logons import open_logon
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.documents import LogonDoc

BETA = NodeKeys.create()
OLD = LogonDoc("backup", ("beta",), ("dbs",))
VIEW = v.LogonView("db", OLD, ("beta",), ("gamma",), "2025-01-01T00:00:00Z", "ann")
SECRET = "s3cret phrase"


@pytest.fixture
def asked(daemon: FakeDaemon) -> FakeDaemon:
    daemon.answers.update({
        "logon.recipients": v.LogonRecipients("mesh-1", {BETA.id: BETA.encryption_key}),
        "logon.list": v.LogonList((VIEW,)),
        "logon.create": VIEW,
        "logon.set": VIEW,
    })  # fmt: skip
    return daemon


def opened(sealed: q.SealedLogon) -> str:
    return open_logon(BETA, sealed.copies[BETA.id], mesh="mesh-1", name="db", version=sealed.version)


def last(daemon: FakeDaemon) -> Any:
    return daemon.received[-1].request


async def test_a_secret_leaves_the_command_sealed_to_each_server_that_may_use_it(
    asked: FakeDaemon, shell: Shell, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    words = ("--user", "backup", "--server", "beta", "--pool", "dbs", "--secret-file", str(tmp_path / "secret"))
    result = await shell("logon", "create", "db", *words)
    assert result.status == 0, result.err
    assert asked.received[-2].request == q.LogonUsers(("beta",), ("dbs",))
    request = last(asked)
    assert (request.name, request.user, request.users) == ("db", "backup", q.LogonUsers(("beta",), ("dbs",)))
    assert opened(request.sealed) == SECRET
    for shown in (repr(request), result.out, result.err, repr([each.request for each in asked.received])):
        assert SECRET not in shown


async def test_a_secret_may_come_from_standard_input(
    asked: FakeDaemon, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SECRET.encode())))
    result = await shell("logon", "set", "db", "--secret-file", "-")
    assert result.status == 0, result.err
    assert opened(last(asked).sealed) == SECRET and last(asked).before == OLD


async def test_who_may_use_a_logon_is_added_to_and_taken_from_without_the_secret(
    asked: FakeDaemon, shell: Shell
) -> None:
    words = "--user other --add-server gamma --remove-server beta --add-pool more --remove-pool dbs"
    result = await shell("logon", "set", "db", *words.split())
    assert result.status == 0, result.err
    assert last(asked) == q.LogonSet("db", "other", q.LogonUsers(("gamma",), ("more",)), None, before=OLD)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("logon create db --user u", 2),
        ("logon create db --user u --server beta", 2),
        ("logon create db --user u --server beta --secret-file /nowhere", 2),
        ("logon set absent --user u", 5),
        ("logon set db --remove-server gamma", 5),
        ("logon set db --new-secret", 2),
    ],
)
async def test_what_makes_no_sense_is_refused(asked: FakeDaemon, shell: Shell, words: str, status: int) -> None:
    assert (await shell(*words.split())).status == status
    assert not any(isinstance(each.request, q.LogonCreate | q.LogonSet) for each in asked.received)


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"zero\0byte", b"\xff\xfe", b"x" * 4097])
async def test_what_is_no_secret_is_refused(asked: FakeDaemon, shell: Shell, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    words = ("logon", "create", "db", "--user", "u", "--server", "beta", "--secret-file", str(tmp_path / "secret"))
    assert (await shell(*words)).status == 2
