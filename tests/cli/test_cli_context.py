"""``caso-mesh context``: what it writes works without the state folder, and is not written over another operator's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cli_world import FakeDaemon, Shell, another_mesh

from caso_mesh.model import requests as q
from caso_mesh.model import views as v

STATUS = v.StatusView("tests", "alpha", None, 3, (), 1, 0, 0)
#: Nobody listens there: the discard port is for those who run as root.
NOBODY = "127.0.0.1:9"


def row(name: str, address: str, *, voter: bool) -> v.ServerView:
    return v.ServerView(name, name, "enabled", True, voter, voter, (), address, "1")


@pytest.fixture
def contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", os.fspath(tmp_path / "config"))
    return tmp_path / "config" / "caso-mesh" / "contexts"


async def test_a_context_asks_at_the_first_of_its_servers_that_answers(
    daemon: FakeDaemon, shell: Shell, contexts: Path
) -> None:
    daemon.answers["status"] = STATUS
    made = await shell("context", "create", "office", "--endpoint", NOBODY, "--endpoint", daemon.address, "--json")
    assert made.document == {
        "name": "office",
        "folder": str(contexts / "office"),
        "endpoints": [NOBODY, daemon.address],
    }
    assert (contexts / "office" / "operator.key").stat().st_mode & 0o777 == 0o600
    assert daemon.received == []  # with --endpoint no daemon need run
    shutil.rmtree(shell.state)
    assert (await shell("--context", "office", "status", state=False)).status == 0
    assert (
        await shell("--context", "office", "context", "create", "gone", "--endpoint", NOBODY, state=False)
    ).status == 0
    gone = await shell("--context", "gone", "--timeout", "0.1s", "status", "--json", state=False)
    assert (gone.status, gone.document["error"]["code"]) == (3, "cannot-connect")
    shutil.rmtree(contexts / "gone")
    argv = ("--context", "office", "context", "create", "gone", "--endpoint", NOBODY, "--endpoint", "127.0.0.1:1")
    assert (await shell(*argv, state=False)).status == 0
    none = await shell("--context", "gone", "--timeout", "0.1s", "status", state=False)
    assert f"{NOBODY}, 127.0.0.1:1" in none.err


async def test_without_an_address_a_context_knows_all_servers_the_voters_first(
    daemon: FakeDaemon, shell: Shell, contexts: Path
) -> None:
    rows = (row("delta", "10.0.0.4:1", voter=False), row("alpha", daemon.address, voter=True))
    daemon.answers["server.list"] = v.ServerList(rows)
    made = await shell("context", "create", "office", "--json")
    assert made.document["endpoints"] == [daemon.address, "10.0.0.4:1"]
    assert [each.request for each in daemon.received] == [q.ServerListRequest()]


async def test_a_context_is_made_again_by_its_own_operator_only(
    daemon: FakeDaemon, shell: Shell, contexts: Path, tmp_path: Path
) -> None:
    create = ("context", "create", "office", "--json", "--endpoint")
    assert (await shell(*create, daemon.address)).status == 0
    assert (await shell(*create, "10.0.0.4:1")).status == 0
    assert (contexts / "office" / "endpoint").read_text() == "10.0.0.4:1\n"
    other = tmp_path / "other"
    another_mesh().write_state(other)
    refused = await shell(*create, daemon.address, "--state", os.fspath(other), state=False)
    assert (refused.status, refused.document["error"]["code"]) == (6, "already-exists")
    assert (contexts / "office" / "endpoint").read_text() == "10.0.0.4:1\n"


async def test_contexts_are_listed_and_one_that_there_is_not_is_not_taken_for_a_server(
    daemon: FakeDaemon, shell: Shell, contexts: Path
) -> None:
    none = await shell("context", "list", state=False)
    assert "caso-mesh context create NAME" in none.err
    for name in ("office", "home"):
        assert (await shell("context", "create", name, "--endpoint", "10.0.0.4:1", "--endpoint", "b:2")).status == 0
    (contexts / "half").mkdir()
    listed = (await shell("context", "list", "--json", state=False)).document["contexts"]
    assert [(row["name"], row["endpoints"]) for row in listed] == [
        (name, ["10.0.0.4:1", "b:2"]) for name in ("home", "office")
    ]
    for name in ("half", "other"):
        wrong = await shell("--context", name, "status", state=False)
        assert (wrong.status, wrong.err) == (
            5,
            f'error: There is no context "{name}". "caso-mesh context list" shows what there is.\n',
        )


async def test_names_addresses_and_folders_that_cannot_be_are_refused(
    daemon: FakeDaemon, shell: Shell, contexts: Path
) -> None:
    assert (await shell("context", "create", "../office", "--endpoint", daemon.address)).status == 2
    assert (await shell("context", "create", "office", "--endpoint", "alpha")).status == 2
    assert not contexts.exists()
    contexts.parent.parent.mkdir()
    contexts.parent.symlink_to("nowhere")
    refused = await shell("context", "create", "office", "--endpoint", daemon.address)
    assert (refused.status, "cannot be written" in refused.err) == (4, True)
