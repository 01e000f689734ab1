"""People who are no server's operator: each makes a key on a machine of his own and works towards any server."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable, Sequence

from mesh.process import Answer, ProcessMesh
from waiting import wait_for


def machine(mesh: ProcessMesh, who: str, *words: str, json_output: bool = True) -> Answer:
    """A command on the machine of ``who``, where there is no server."""
    home = mesh.folder / f"machine-{who}"
    home.mkdir(exist_ok=True)
    argv = [sys.executable, "-m", "caso_mesh", *words, *(["--json"] if json_output else [])]
    return mesh.execute(argv, words, json_output=json_output, HOME=str(home))


def invite(mesh: ProcessMesh, who: str, role: str, *scope: str) -> str:
    """The link that an administrator makes."""
    link: str = mesh.ok("alpha", "operator", "create", who, "--role", role, *scope)["link"]
    return link


def enrol(mesh: ProcessMesh, who: str, role: str, *scope: str, endpoints: Sequence[str] = ()) -> pathlib.Path:
    """``who`` is invited, and follows the link on his machine; the folder of his context."""
    at = [word for endpoint in endpoints for word in ("--endpoint", endpoint)]
    link = invite(mesh, who, role, *scope)
    made = machine(mesh, who, "context", "create", "home", "--link", link, *at)
    assert made.status == 0, made
    is_known(mesh, who)
    return pathlib.Path(made.document["folder"])


def is_known(mesh: ProcessMesh, who: str) -> None:
    """Until ``who`` is let in: the administrator has answered him, and tells all servers now."""
    wait_for(lambda: as_(mesh, who, "status").status == 0, what=f"{who} is known where he calls")


def as_(mesh: ProcessMesh, who: str, *words: str) -> Answer:
    return machine(mesh, who, "--context", "home", *words)


def test_an_operator_of_some_servers_works_there_and_nowhere_else_by_way_of_any_server(
    process_mesh: Callable[..., ProcessMesh], tmp_path: pathlib.Path
) -> None:
    mesh = process_mesh(3)
    for name in ("beta", "gamma"):
        (tmp_path / name / "files").mkdir(parents=True)
        (tmp_path / name / "files" / "a").write_text(name)
    (tmp_path / "disk").mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(tmp_path / "disk"))
    mesh.ok("alpha", "pool", "create", "west", "--server", "beta")
    folder = enrol(mesh, "olga", "operator", "--pool", "west", endpoints=[mesh.endpoint("gamma")])
    key = (folder / "operator.key").read_bytes()
    everything = [path for path in mesh.folder.rglob("*") if path.is_file() and path != folder / "operator.key"]
    assert not any(key in path.read_bytes() for path in everything), "the key has left the machine where it was made"

    assert as_(mesh, "olga", "status").status == 0
    assert [row["name"] for row in as_(mesh, "olga", "server", "list").document["servers"]] == ["beta"]
    mine = as_(mesh, "olga", "backup", f"beta:{tmp_path / 'beta'}", "--to", "any", "--wait")
    assert mine.document["state"] == "succeeded", mine
    theirs = mesh.ok("alpha", "backup", f"gamma:{tmp_path / 'gamma'}", "--to", "any", "--wait")
    assert [row["source"] for row in as_(mesh, "olga", "set", "list").document["sets"]] == ["beta"]
    back = as_(mesh, "olga", "restore", mine.document["set"], "--to", f"beta:{tmp_path / 'back'}", "--wait")
    assert back.document["state"] == "succeeded", back
    for words in (
        ("backup", f"gamma:{tmp_path / 'gamma'}", "--to", "any"),
        ("restore", theirs["set"], "--to", f"beta:{tmp_path / 'x'}"),
        ("restore", mine.document["set"], "--to", f"gamma:{tmp_path / 'x'}"),
        ("catalog", "ls", theirs["set"]),
        ("verify", theirs["set"]),
        ("job", "log", theirs["run"]),
        ("job", "cancel", "no-such-job"),
        ("server", "pause", "gamma"),
        ("device", "pause", "disk"),
    ):
        refused = as_(mesh, "olga", *words)
        assert (refused.status, refused.error_code) == (4, "outside-scope"), refused
    for words in (
        ("token", "create"),
        ("set", "delete", theirs["set"]),
        ("operator", "create", "x", "--role", "viewer"),
    ):
        refused = as_(mesh, "olga", *words)
        assert (refused.status, refused.error_code) == (4, "role-too-low"), refused
    refused_calls = {"backup", "restore", "catalog.ls", "token.create", "operator.create"}
    entries = mesh.audited(
        enough=lambda rows: refused_calls <= {row["what"] for row in rows}, who="olga", category="security"
    )
    assert {row["outcome"] for row in entries} == {"outside-scope", "role-too-low"}


def test_who_was_revoked_is_refused_at_once_by_every_server(process_mesh: Callable[..., ProcessMesh]) -> None:
    mesh = process_mesh(2)
    for name in mesh.names:
        enrol(mesh, f"at-{name}", "admin", endpoints=[mesh.endpoint(name)])
        assert as_(mesh, f"at-{name}", "token", "create").status == 0
    listed = {row["name"]: row for row in mesh.ok("alpha", "operator", "list")["operators"]}
    assert (listed["at-beta"]["role"], listed["at-beta"]["home"]) == ("admin", None)
    for name in mesh.names:
        mesh.ok("alpha", "operator", "revoke", f"at-{name}")
        refused = as_(mesh, f"at-{name}", "token", "create")
        assert refused.status == 4, refused
        assert refused.error_code in {"removed-from-mesh", "not-on-roster", "certificate-refused"}, refused
    done = {"operator.create", "operator.revoke"}
    mesh.audited(enough=lambda rows: done <= {row["what"] for row in rows}, who="local-alpha", outcome="done")
    enrolled = mesh.audited(enough=lambda rows: len(rows) >= 2, what="enrol.operator", outcome="done")
    assert sorted(row["who"] for row in enrolled) == ["at-alpha", "at-beta"]


def test_an_invitation_is_good_for_one_key_and_a_broken_attempt_may_be_taken_up_again(
    process_mesh: Callable[..., ProcessMesh],
) -> None:
    mesh = process_mesh(1)
    link = invite(mesh, "anna", "viewer")
    mesh.kill("alpha")
    away = machine(mesh, "anna", "context", "create", "home", "--link", link, "--timeout", "2s")
    assert (away.status, away.error_code) == (3, "cannot-connect"), away
    mesh.run("alpha")
    made = machine(mesh, "anna", "context", "create", "home", "--link", link)
    assert made.status == 0, made
    again = machine(mesh, "anna", "context", "create", "home", "--link", link)
    assert (again.status, again.error_code) == (6, "already-exists"), again
    second = machine(mesh, "mallory", "context", "create", "home", "--link", link)
    assert (second.status, second.error_code) == (4, "join-link-used"), second
    wrong = machine(mesh, "mallory", "context", "create", "other", "--link", mesh.link())
    assert (wrong.status, wrong.error_code) == (4, "join-link-invalid"), wrong
    joining = mesh.cli("omega", "join", invite(mesh, "bert", "viewer"), "--server", "omega")
    assert (joining.status, joining.error_code) == (4, "join-link-invalid"), joining
    is_known(mesh, "anna")
    assert as_(mesh, "anna", "server", "list").status == 0
    outcomes = {"done", "join-link-used"}
    told = mesh.audited(enough=lambda rows: outcomes <= {row["outcome"] for row in rows}, what="enrol.operator")
    assert {row["outcome"] for row in told} == outcomes
