"""The way to the daemon: errors and exit statuses, repetition, whom it trusts, what it finds."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from cli_world import FakeDaemon, Shell, another_mesh, material
from waiting import in_one_of_three

from caso_mesh.cli.client import reachable
from caso_mesh.model import requests as q
from caso_mesh.model import views as v
from caso_mesh.model.errors import (
    AlreadyExists,
    CasoError,
    CatalogNotHere,
    CodeMismatch,
    Conflict,
    DeviceFull,
    InternalError,
    InvalidName,
    LinkLost,
    NoAdmin,
    NotFound,
    PathNotInSet,
    RateLimited,
    RoleTooLow,
    ServerNotLinked,
    TimedOut,
    UnknownSetting,
)

STATUS = v.StatusView("tests", "alpha", None, 3, (), 1, 0, 0)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DeviceFull(device="d"), 1),
        (InternalError(detail="x"), 1),
        (InvalidName(name="X", kind="pool"), 2),
        (UnknownSetting(name="x"), 2),
        (NoAdmin(server="alpha"), 3),
        (ServerNotLinked(server="beta"), 3),
        (CatalogNotHere(set="s", server="beta"), 3),
        (RoleTooLow(who="eve", call="status", role="admin"), 4),
        (CodeMismatch(code="x", server="y"), 4),
        (RateLimited(peer="x"), 4),
        (NotFound(kind="pool", name="west"), 5),
        (PathNotInSet(set="s", path="/x"), 5),
        (Conflict(detail="no"), 6),
        (AlreadyExists(kind="pool", name="west"), 6),
    ],
    ids=lambda each: each.code if isinstance(each, CasoError) else str(each),
)
async def test_each_class_of_error_has_its_exit_status_and_is_one_line_or_one_document(
    daemon: FakeDaemon, shell: Shell, error: CasoError, status: int
) -> None:
    daemon.answers["status"] = error
    timeout = "1s" if status == 3 else "60s"  # those are repeated until then
    plain = await shell("status", "--timeout", timeout)
    as_json = await shell("status", "--timeout", timeout, "--json")
    assert plain.status == as_json.status == status
    assert plain.out == ""
    assert plain.err == f"error: {error.message} {error.hint}".rstrip() + "\n"
    assert as_json.err == ""
    assert as_json.document == {"error": {"code": error.code, "message": error.message, "hint": error.hint}}


async def test_usage_errors_have_status_two_and_are_documents_if_asked(shell: Shell) -> None:
    for argv in (
        ("nonsense",),
        ("status", "--nonsense"),
        ("backup", "alpha:/x"),
        ("server", "approve"),
        ("token", "x"),
    ):
        plain, as_json = await shell(*argv), await shell(*argv, "--json")
        assert plain.status == as_json.status == 2, argv
        assert plain.err.startswith("error: ")
        assert plain.err.count("\n") == 1
        assert as_json.document["error"]["code"] == "usage"
    bad = await shell("backup", "alpha:relative", "--to", "any", "--json")
    assert (bad.status, bad.document["error"]["code"]) == (2, "invalid-value")
    assert (await shell("status", "--timeout", "soon")).status == 2


async def test_options_that_contradict_each_other_are_refused_before_anything_is_asked(
    daemon: FakeDaemon, shell: Shell
) -> None:
    for argv in (
        ("backup", "--to", "any"),
        ("backup", "alpha:/x", "--to", "any", "--zone", "UTC"),
        ("backup", "alpha:/x", "--to", "any", "--schedule", "5 2 * * *", "--wait"),
        ("backup", "alpha:/x", "--to", "any", "--schedule", "5 2 * * *", "--test-run"),
        ("backup", "alpha:/x", "--to", "any", "--json-lines"),
        ("backup", "alpha:/x", "--to", "any", "--wait", "--json", "--json-lines"),
        ("restore", "set1", "--strip"),
        ("device", "add", "d", "--server", "beta"),
        ("device", "add", "d", "--kind", "shared"),
        ("device", "add", "d", "--kind", "disk", "--on", "beta=/x"),
        ("device", "add", "d", "--on", "beta"),
        ("device", "set", "d"),
        ("device", "add", "d", "--server", "beta", "--path", "/x", "--low-space", "much"),
        ("settings", "set", "x", "1", "--server", "a", "--pool", "b"),
        ("catalog", "find", "*", "--since", "yesterday"),
        ("status", "--context", "there"),
        ("run", "--server", "new"),
    ):
        assert (await shell(*argv)).status == 2, argv
    assert daemon.received == []


async def test_questions_are_only_asked_of_a_person(
    daemon: FakeDaemon, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("asked a question"))
    daemon.answers["server.remove"] = v.Done()
    assert (await shell("server", "remove", "beta")).status == 0
    refused = await shell("server", "approve", "new")
    assert refused.status == 2
    assert "--code" in refused.err


async def test_a_person_compares_the_code_before_a_server_is_approved(
    daemon: FakeDaemon, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = v.ServerView("new", "n" * 52, "discovered", False, False, False, (), "127.0.0.1:1", "", code="abcd2345")
    daemon.answers["server.list"] = v.ServerList((new,))
    daemon.answers["server.approve"] = new
    questions: list[str] = []
    replies = ["no", "yes"]

    def answer(question: str) -> str:
        questions.append(question)
        return replies.pop(0)

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr("caso_mesh.cli.server.interactive", lambda: True)
    assert (await shell("server", "approve", "new")).status == 4
    assert (await shell("server", "approve", "new")).status == 0
    assert (await shell("server", "approve", "nobody")).status == 5
    assert "abcd2345" in questions[0]
    assert [each.request for each in daemon.received if each.call == "server.approve"] == [
        q.ServerApprove("new", "abcd2345")
    ]


async def test_a_call_that_nobody_can_answer_yet_is_repeated_with_the_same_request_id(
    daemon: FakeDaemon, shell: Shell
) -> None:
    done = v.PoolView("west", ())
    daemon.answers["pool.create"] = [NoAdmin(server="alpha"), ServerNotLinked(server="beta"), done]
    assert (await shell("pool", "create", "west")).status == 0
    assert len(daemon.received) == 3
    assert len({each.request_id for each in daemon.received}) == 1
    await shell("pool", "create", "west")
    assert len({each.request_id for each in daemon.received}) == 2


async def test_a_call_whose_connection_breaks_is_repeated_over_a_new_one(daemon: FakeDaemon, shell: Shell) -> None:
    async def drop(_: q.Nothing) -> v.StatusView:
        if len(daemon.received) == 1:
            (link,) = daemon.links
            await link.close(LinkLost(peer="alpha"))
            await asyncio.Event().wait()  # the end of the link cancels this
        return STATUS

    daemon.answers["status"] = drop
    assert (await shell("status")).status == 0
    assert len({each.request_id for each in daemon.received}) == 1
    assert len(daemon.links) == 2


async def test_a_refused_call_is_not_repeated(daemon: FakeDaemon, shell: Shell) -> None:
    daemon.answers["status"] = RateLimited(peer="x")
    await shell("status")
    assert len(daemon.received) == 1


async def test_repeating_ends_with_the_timeout(daemon: FakeDaemon, shell: Shell) -> None:
    daemon.answers["status"] = NoAdmin(server="alpha")

    async def attempt() -> None:
        daemon.received.clear()
        began = time.monotonic()
        result = await shell("status", "--timeout", "1500ms", "--json")
        assert time.monotonic() - began > 1.4
        assert (result.status, result.document["error"]["code"]) == (3, "no-admin")
        assert len(daemon.received) > 1
        assert daemon.received[-1].timeout_s < daemon.received[0].timeout_s <= 1.5

    await in_one_of_three(attempt)


async def test_a_daemon_that_never_answers_is_given_up_with_the_timeout(daemon: FakeDaemon, shell: Shell) -> None:
    async def never(_: q.Nothing) -> v.StatusView:
        await asyncio.Event().wait()
        raise AssertionError

    daemon.answers["status"] = never
    result = await shell("status", "--timeout", "1s", "--json")
    assert (result.status, result.document["error"]["code"]) == (3, TimedOut.code)


async def test_no_state_folder_is_told_at_once(tmp_path: Path, shell: Shell) -> None:
    result = await shell(
        "status", "--state", os.fspath(tmp_path / "nothing"), "--json", "--timeout", "1000s", state=False
    )
    assert (result.status, result.document["error"]["code"]) == (3, "state-missing")


async def test_a_daemon_that_is_not_running_is_waited_for(state: Path, shell: Shell) -> None:
    result = await shell("status", "--timeout", "300ms", "--json")
    assert (result.status, result.document["error"]["code"]) == (3, "daemon-not-running")
    fake = FakeDaemon(state, material())
    fake.answers["status"] = STATUS
    async with fake.listening():
        assert (await shell("status")).status == 0
    # its endpoint file stays behind as after a crash
    result = await shell("status", "--timeout", "300ms", "--json")
    assert (result.status, result.document["error"]["code"]) == (3, "daemon-not-running")
    assert fake.address in result.document["error"]["message"]


async def test_a_daemon_that_listens_everywhere_is_reached_on_this_machine(state: Path, shell: Shell) -> None:
    fake = FakeDaemon(state, material())
    fake.answers["status"] = STATUS
    async with fake.listening():
        port = fake.address.rpartition(":")[2]
        (state / "run" / "endpoint").write_text(f"0.0.0.0:{port}\n")
        assert (await shell("status")).status == 0
    assert reachable("[::]:1") == "[::1]:1"
    assert reachable("10.0.0.1:1") == "10.0.0.1:1"


async def test_a_server_of_another_mesh_is_not_believed(state: Path, shell: Shell) -> None:
    fake = FakeDaemon(state, material())
    async with fake.listening(certificate=another_mesh()):
        result = await shell("status", "--json")
    assert (result.status, result.document["error"]["code"]) == (4, "certificate-refused")
    assert fake.received == []


async def test_another_server_of_the_mesh_at_the_address_is_not_taken_for_the_own_one(
    state: Path, shell: Shell, tmp_path: Path
) -> None:
    from caso_mesh.identity.keys import NodeKeys
    from caso_mesh.identity.store import IdentityStore

    fake = FakeDaemon(state, material())
    async with fake.listening():
        own = state / "identity"
        keys = NodeKeys.create()
        (own / "node.pem").unlink()
        IdentityStore(own).save_keys(keys)
        result = await shell("status", "--json")
    assert (result.status, result.document["error"]["code"]) == (4, "wrong-peer")


async def test_a_context_reaches_any_server_of_the_mesh(
    daemon: FakeDaemon, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", os.fspath(tmp_path))
    material().write_context(tmp_path / "caso-mesh" / "contexts" / "office", daemon.address)
    daemon.answers["status"] = STATUS
    assert (await shell("status", "--context", "office", state=False)).status == 0
    assert (await shell("status", "--context", "home", state=False)).status == 5
    assert (await shell("status", "--context", "../office", state=False)).status == 2


async def test_a_context_goes_on_to_the_next_server_when_the_first_one_reaches_nobody_in_office(
    daemon: FakeDaemon, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the wrong side of a cut a server answers, and asked again it has nothing else to say."""
    monkeypatch.setenv("XDG_CONFIG_HOME", os.fspath(tmp_path))
    other = FakeDaemon(tmp_path / "other", material())
    (tmp_path / "other" / "run").mkdir(parents=True)
    daemon.answers["status"], other.answers["status"] = NoAdmin(server="alpha"), STATUS
    async with other.listening():
        folder = tmp_path / "caso-mesh" / "contexts" / "office"
        material().write_context(folder, daemon.address)
        (folder / "endpoint").write_text(f"{daemon.address}\n{other.address}\n")
        assert (await shell("status", "--context", "office", state=False)).status == 0
    assert len(daemon.received) > 1, "a change of administrator is not run away from at once"
    assert {each.request_id for each in daemon.received} == {each.request_id for each in other.received}


async def test_the_state_folder_is_found_by_option_then_environment_then_user(
    daemon: FakeDaemon, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.answers["status"] = STATUS
    monkeypatch.setenv("CASO_MESH_STATE", os.fspath(shell.state))
    assert (await shell("status", state=False)).status == 0
    monkeypatch.setenv("CASO_MESH_STATE", os.fspath(tmp_path / "nothing"))
    assert (await shell("status", state=False)).status == 3
    assert (await shell("status")).status == 0
    monkeypatch.delenv("CASO_MESH_STATE")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", os.fspath(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    shell.state.rename(tmp_path / "home" / "caso-mesh")
    assert (await shell("status", state=False)).status == 0
    monkeypatch.setattr("os.geteuid", lambda: 0)
    missing = await shell("status", "--json", state=False)
    assert "/var/lib/caso-mesh" in missing.document["error"]["message"]


async def test_bugs_are_one_line_too(daemon: FakeDaemon, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.answers["status"] = STATUS
    monkeypatch.setattr("caso_mesh.cli.status.show", lambda _: 1 / 0)
    result = await shell("status")
    assert (result.status, result.err.count("\n")) == (1, 1)
    assert "ZeroDivisionError" in result.err
    monkeypatch.setenv("CASO_MESH_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        await shell("status")
