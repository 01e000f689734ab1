"""Bad input gets a clear error: an exit status, a code, one line that says what to do; and nothing is lost."""

from __future__ import annotations

import json
import pathlib
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from mesh.process import Answer, ProcessMesh, running_mesh
from mesh.trees import assert_equal, make_tree
from waiting import wait_for

from caso_mesh.identity.tokens import make_link, parse_link

USAGE, UNAVAILABLE, REFUSED, NOT_FOUND, CONFLICT = 2, 3, 4, 5, 6


@dataclass(frozen=True)
class Place:
    """A mesh of two that tests share, with a device, a pool, a set; nobody changes what another one needs."""

    mesh: ProcessMesh
    tree: pathlib.Path
    set: str
    run: str

    def fill(self, words: tuple[str, ...]) -> list[str]:
        return [
            word.replace("SET", self.set)
            .replace("RUN", self.run)
            .replace("TREE", str(self.tree))
            .replace("TMP", str(self.mesh.folder))
            for word in words
        ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running_mesh(tmp_path_factory.mktemp("bad") / "mesh") as mesh:
        mesh.start(2)
        tree = make_tree(mesh.folder / "data", files=30)
        for name in ("disk", "other", "third", "not-a-folder-parent"):
            (mesh.folder / name).mkdir()
        (mesh.folder / "file").write_text("not a folder")
        (mesh.folder / "empty").mkdir()
        mesh.ok("alpha", "device", "add", "disk", "--server", "beta", "--path", str(mesh.folder / "disk"))
        mesh.ok("alpha", "pool", "create", "vaults", "--server", "beta")
        mesh.ok("alpha", "pool", "create", "nobody", "--server", "alpha")
        made = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "pool:vaults", "--wait")
        yield Place(mesh, tree, made["set"], made["run"])


def check(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.error_code) == (status, code), str(answer)
    error = answer.document["error"]
    assert set(error) == {"code", "message", "hint"}
    assert error["message"] and "{" not in error["message"] + error["hint"]


REFUSED_COMMANDS: list[tuple[str, int, str, tuple[str, ...]]] = [
    ("no such command", USAGE, "usage", ("bacup", "alpha:/etc")),
    ("an option that does not exist", USAGE, "usage", ("status", "--colour")),
    ("a place without a server", USAGE, "invalid-value", ("backup", "TREE", "--to", "any")),
    ("a path that is not absolute", USAGE, "invalid-value", ("backup", "alpha:etc", "--to", "any")),
    ("nothing to back up", USAGE, "usage", ("backup", "--to", "any")),
    ("an unknown server as source", NOT_FOUND, "not-found", ("backup", "omega:/etc", "--to", "any")),
    ("an unknown server as target", NOT_FOUND, "not-found", ("backup", "alpha:TREE", "--to", "server:omega")),
    ("an unknown device", NOT_FOUND, "not-found", ("backup", "alpha:TREE", "--to", "device:disk9")),
    ("an unknown pool", NOT_FOUND, "not-found", ("backup", "alpha:TREE", "--to", "pool:clouds")),
    ("a target that is none", USAGE, "invalid-value", ("backup", "alpha:TREE", "--to", "cloud:nine")),
    ("a path that is not there", NOT_FOUND, "source-path-missing", ("backup", "alpha:TMP/nothing", "--to", "any")),
    ("an unknown media set", NOT_FOUND, "not-found", ("backup", "alpha:TREE", "--to", "any", "--media-set", "x")),
    (
        *("a schedule that is none", USAGE, "invalid-schedule"),
        ("backup", "alpha:TREE", "--to", "any", "--schedule", "at dawn"),
    ),
    (
        *("a cron line that never fires", USAGE, "invalid-schedule"),
        ("backup", "alpha:TREE", "--to", "any", "--schedule", "0 0 31 2 *"),
    ),
    ("a device moved to where it is not", 1, "device-vanished", ("device", "move", "disk", "--to", "beta=TMP/other")),
    ("an error rule for no error", USAGE, "invalid-value", ("error-rule", "create", "r", "--error", "no-such")),
    ("an unknown medium", NOT_FOUND, "not-found", ("medium", "retire", "BETA-999999")),
    (
        *("a zone that is none", USAGE, "unknown-zone"),
        ("backup", "alpha:TREE", "--to", "any", "--schedule", "0 2 * * *", "--zone", "Europe/Atlantis"),
    ),
    ("an unknown set to restore", NOT_FOUND, "not-found", ("restore", "zzzz")),
    ("a restore to an unknown server", NOT_FOUND, "not-found", ("restore", "SET", "--to", "omega:/tmp/x")),
    ("a restore into a state folder", REFUSED, "not-allowed-here", ("restore", "SET", "--to", "beta:TMP/state-beta/x")),
    ("a restore into a device", REFUSED, "not-allowed-here", ("restore", "SET", "--to", "beta:TMP/disk/x")),
    ("a state folder as source", REFUSED, "not-allowed-here", ("backup", "beta:TMP/state-beta", "--to", "any")),
    ("an unknown set to verify", NOT_FOUND, "not-found", ("verify", "zzzz")),
    ("a listing of an unknown set", NOT_FOUND, "not-found", ("catalog", "ls", "zzzz")),
    ("a listing of what is not in the set", NOT_FOUND, "path-not-in-set", ("catalog", "ls", "SET", "/not/in/it")),
    ("an unknown job", NOT_FOUND, "not-found", ("job", "show", "zzzz")),
    ("a run that has ended", CONFLICT, "wrong-state", ("job", "cancel", "RUN")),
    ("an unknown setting", USAGE, "unknown-setting", ("settings", "set", "speed", "11")),
    ("a setting out of its bounds", USAGE, "invalid-value", ("settings", "set", "server-concurrency", "0")),
    ("a duration that is none", USAGE, "invalid-value", ("settings", "set", "stalled-after-s", "soon")),
    ("a name in capitals", USAGE, "invalid-name", ("pool", "create", "Vaults", "--server", "beta")),
    ("a pool that is there already", CONFLICT, "already-exists", ("pool", "create", "vaults", "--server", "beta")),
    ("a pool of an unknown server", NOT_FOUND, "not-found", ("pool", "create", "p2", "--server", "omega")),
    ("an unknown alert", NOT_FOUND, "not-found", ("alert", "answer", "zzzz")),
    ("an unknown server to pause", NOT_FOUND, "not-found", ("server", "pause", "omega")),
    ("an unknown server to approve", NOT_FOUND, "not-found", ("server", "approve", "omega", "--code", "aaaaaaaa")),
    (
        *("a device that is there already", CONFLICT, "already-exists"),
        ("device", "add", "disk", "--server", "beta", "--path", "TMP/other"),
    ),
    (
        *("a folder that is a device already", CONFLICT, "in-use"),
        ("device", "add", "disk2", "--server", "beta", "--path", "TMP/disk"),
    ),
    (
        *("a device at an unknown server", NOT_FOUND, "not-found"),
        ("device", "add", "disk2", "--server", "omega", "--path", "TMP/other"),
    ),
    (
        *("a device without a folder", USAGE, "device-path-invalid"),
        ("device", "add", "disk2", "--server", "beta", "--path", "TMP/missing"),
    ),
    (
        *("a device that is a file", USAGE, "device-path-invalid"),
        ("device", "add", "disk2", "--server", "beta", "--path", "TMP/file"),
    ),
    (
        *("a device that cannot be written", USAGE, "device-path-invalid"),
        ("device", "add", "disk2", "--server", "beta", "--path", "/proc/self"),
    ),
    (
        *("two folders as one shared device", CONFLICT, "device-not-shared"),
        ("device", "add", "nas", "--on", "alpha=TMP/other", "--on", "beta=TMP/third"),
    ),
    ("a device that holds sets", CONFLICT, "in-use", ("device", "remove", "disk")),
    ("an address that is none", USAGE, "invalid-value", ("peer", "add", "nowhere")),
]


@pytest.mark.parametrize(
    ("status", "code", "argv"), [row[1:] for row in REFUSED_COMMANDS], ids=[row[0] for row in REFUSED_COMMANDS]
)
def test_a_command_that_cannot_be_done_is_refused_with(place, status, code, argv):
    check(place.mesh.cli("alpha", *place.fill(argv)), status, code)


MISTAKES = """\
[pool.vaults]
servers = ["omega"]
[error_rule.full]
errors = ["device-ful"]
[device.disk]
concurrency = 4
state = "broken"
[selection.home]
paths = ["alpha:TREE", "alpha:TMP/nothing", "beta:relative"]
window = "25:00-26:00"
[policy.nightly]
zone = "Europe/Atlantis"
rules = ["full supersedes inc", "inc supersedes full", "when full fails start full"]
[policy.nightly.templates.full]
type = "full"
to = "pool:nobody"
schedule = "0 0 31 2 *"
[policy.nightly.templates.inc]
type = "incremental"
to = "device:disk9"
schedule = "daily 22:00"
media_set = "none"
pre = "no-such-command"
[associations]
home = ["nightly", "weekly"]
"""


def test_a_file_with_a_dozen_mistakes_is_refused_with_each_line_and_key_and_nothing_of_it_is_done(place):
    mesh, file = place.mesh, place.mesh.folder / "mesh.toml"
    file.write_text(place.fill((MISTAKES,))[0])
    before = mesh.cli("alpha", "export", json_output=False).stdout
    answer = mesh.cli("alpha", "apply", "-f", str(file))
    assert (answer.status, answer.document["applied"], answer.document["changes"]) == (USAGE, False, [])
    assert [(each["line"], each["place"]) for each in answer.document["mistakes"]] == [
        (2, "pool.vaults.servers"),
        (4, "error_rule.full.errors"),
        (7, "device.disk.state"),
        (9, "selection.home.paths"),
        (9, "selection.home"),
        (10, "selection.home.window"),
        (12, "policy.nightly.zone"),
        (13, "policy.nightly.rules"),
        (13, "policy.nightly.rules"),
        (17, "policy.nightly.templates.full.schedule"),
        (20, "policy.nightly.templates.inc.to"),
        (22, "policy.nightly.templates.inc.media_set"),
        (23, "policy.nightly.templates.inc"),
        (25, "associations.home"),
    ]
    assert mesh.cli("alpha", "export", json_output=False).stdout == before
    shown = mesh.cli("alpha", "apply", "-f", str(file), json_output=False)
    assert (shown.stdout, shown.stderr.splitlines()[-1]) == ("", "14 mistakes; nothing was changed.")


def test_all_of_them_together_changed_nothing(place):
    mesh = place.mesh
    assert [row["name"] for row in mesh.ok("alpha", "device", "list")["devices"]] == ["disk"]
    assert [row["name"] for row in mesh.ok("alpha", "pool", "list")["pools"]] == ["nobody", "vaults"]
    assert {row["id"] for row in mesh.sets()} >= {place.set}
    assert mesh.jobs() == []
    for name in ("other", "third"):
        assert list((mesh.folder / name).iterdir()) == [], f"a refused device left something in {name}"


def test_an_error_for_people_is_one_line_on_stderr_and_nothing_on_stdout(place):
    answer = place.mesh.cli("alpha", "pool", "delete", "clouds", json_output=False)
    assert answer.status == NOT_FOUND
    assert answer.stdout == ""
    assert answer.stderr.startswith("error: ")
    assert "clouds" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_an_empty_folder_is_never_a_green_backup(place):
    answer = place.mesh.cli("alpha", "backup", f"alpha:{place.mesh.folder}/empty", "--to", "pool:vaults", "--wait")
    assert answer.status == 1
    assert answer.document["state"] == "failed"
    assert answer.document["error"]["code"] == "contains-no-data"
    assert answer.document["set"] is None


def test_a_restore_of_a_path_that_is_not_in_the_set_fails_with_it(place):
    answer = place.mesh.cli(
        "alpha", "restore", place.set, "/not/in/it", "--to", f"alpha:{place.mesh.folder}/x", "--wait"
    )
    assert answer.status in {1, NOT_FOUND}
    assert answer.document["error"]["code"] == "path-not-in-set", str(answer)


def test_a_pool_without_a_device_waits_with_the_reason_and_can_be_canceled(place):
    mesh = place.mesh
    run = mesh.ok("alpha", "backup", f"alpha:{place.tree}", "--to", "pool:nobody")["run"]
    row = wait_for(lambda: next((row for row in mesh.jobs() if row["run"] == run and row["reason"]), None))
    assert row["reason"] == "no-device-in-target"
    mesh.ok("alpha", "job", "cancel", run)
    result = mesh.cli("alpha", "job", "watch", run)
    assert (result.status, result.document["state"]) == (1, "canceled")


def test_a_device_inside_of_what_is_backed_up_is_left_out_with_a_warning(place):
    mesh = place.mesh
    answer = mesh.cli(
        "alpha", "backup", f"beta:{mesh.folder}", "--to", "pool:vaults", "--exclude", "state-alpha", "--wait"
    )
    assert answer.status in {0, 7}, str(answer)
    said = answer.stderr + " ".join(answer.document["warnings"])
    assert f"{mesh.folder}/disk" in said
    assert f"{mesh.folder}/state-beta" in said
    listed = mesh.ok("alpha", "catalog", "find", f"{mesh.folder}/disk/*", "--limit", "5")["matches"]
    assert listed == []
    assert mesh.ok("alpha", "catalog", "find", f"{mesh.folder}/state-beta/identity/*")["matches"] == []


def test_a_call_above_the_callers_role_is_refused(place):
    """The operator of a state folder is only a viewer of the mesh, unless its server is a voter."""
    answer = place.mesh.cli("beta", "pool", "create", "mine", "--server", "beta")
    check(answer, REFUSED, "role-too-low")
    assert place.mesh.cli("beta", "server", "list").status == 0


def test_a_disk_that_another_mesh_uses_is_refused_as_a_device_and_read_with_the_kit_of_that_mesh(
    place, process_mesh, tmp_path
):
    other, disk = process_mesh(1), str(place.mesh.folder / "disk")
    refused = other.cli("alpha", "device", "add", "mine", "--server", "alpha", "--path", disk)
    check(refused, CONFLICT, "device-foreign")
    assert "recovery kit of that mesh" in refused.document["error"]["hint"]
    (tmp_path / "passphrase").write_text("four long words together")
    kit = ("--kit", str(tmp_path / "kit"), "--passphrase-file", str(tmp_path / "passphrase"))
    place.mesh.ok("alpha", "kit", "create", kit[1], *kit[2:])
    words = ("vault", "restore", disk, place.set, *kit, "--to", str(tmp_path / "back"), "--strip")
    answer = other.execute([sys.executable, "-m", "caso_mesh", *words, "--json"], words, json_output=True)
    assert answer.status == 0, answer
    assert_equal(place.tree, tmp_path / "back")
    assert place.mesh.ok("alpha", "verify", place.set, "--wait")["state"] == "succeeded"


# --- joining ---------------------------------------------------------------------------------------------------------


def join(mesh: ProcessMesh, link: str, name: str = "newcomer") -> Answer:
    return mesh.cli(name, "join", link, "--server", name, "--listen", "127.0.0.1:0", "--preset", "local")


def test_a_join_link_that_was_used_is_refused(place):
    mesh = place.mesh
    link = mesh.link()
    assert join(mesh, link, "first").status == 0
    check(join(mesh, link, "second"), REFUSED, "join-link-used")
    assert not mesh.state("second").exists() or not (mesh.state("second") / "consensus.db").exists()
    assert mesh.cli("alpha", "server", "remove", "first").status == 0


def test_a_join_link_that_has_expired_is_refused(place):
    link = place.mesh.link("alpha", "--ttl", "1s")
    wait_for(lambda: time.time_ns() > parse_link(link).expires_at_ns, what="the link has expired")
    check(join(place.mesh, link, "late"), REFUSED, "join-link-expired")


def test_a_join_link_that_was_mistyped_is_refused(place):
    link = place.mesh.link()
    check(join(place.mesh, link[: len(link) // 2]), REFUSED, "join-link-invalid")
    check(join(place.mesh, "hello"), REFUSED, "join-link-invalid")
    told = parse_link(link)
    secret = bytes([told.secret[0] ^ 1]) + told.secret[1:]
    guessed = make_link(
        mesh=told.mesh,
        root_fingerprint=told.root,
        addresses=told.addresses,
        secret=secret,
        expires_at_ns=told.expires_at_ns,
    )
    check(join(place.mesh, guessed), REFUSED, "join-link-invalid")
    assert join(place.mesh, link).status == 0, "after a mistake the right link still works, on the same state folder"
    assert place.mesh.cli("alpha", "server", "remove", "newcomer").status == 0


def test_a_join_link_that_leads_to_another_mesh_sends_nothing_there(place, process_mesh):
    """The address in the link belongs to another mesh by now: the link pins its own."""
    mesh, other = place.mesh, process_mesh(1)
    link = mesh.link()
    told = parse_link(link)
    redirected = make_link(
        mesh=told.mesh,
        root_fingerprint=told.root,
        addresses=(other.endpoint("alpha"),),
        secret=told.secret,
        expires_at_ns=told.expires_at_ns,
    )
    check(join(mesh, redirected, "rightly"), REFUSED, "join-link-foreign")
    assert join(mesh, link, "rightly").status == 0, "the secret of the link was spent at a foreign server"
    assert mesh.cli("alpha", "server", "remove", "rightly").status == 0


def test_a_name_that_is_taken_cannot_join(place):
    answer = place.mesh.cli(
        *("copycat", "join", place.mesh.link(), "--server", "beta", "--listen", "127.0.0.1:0", "--preset", "local")
    )
    check(answer, CONFLICT, "already-exists")


def test_a_state_folder_that_belongs_to_a_mesh_is_not_used_twice(place, process_mesh):
    check(join(place.mesh, place.mesh.link(), "beta"), CONFLICT, "state-locked")
    mesh = process_mesh(0)
    mesh.init("alpha")
    again = ("init", "--mesh", "other", "--server", "alpha", "--listen", "127.0.0.1:0")
    check(mesh.cli("alpha", *again), CONFLICT, "state-not-empty")
    check(join(mesh, place.mesh.link(), "alpha"), CONFLICT, "state-not-empty")
    mesh.run("alpha")
    assert mesh.ok("alpha", "status")["mesh"] == "meadow"


# --- daemons ---------------------------------------------------------------------------------------------------------


def daemon_ends(mesh: ProcessMesh, name: str) -> tuple[int, str]:
    """Runs a daemon that cannot start: exit status and what it said."""
    words = [sys.executable, "-m", "caso_mesh", "run", "--state", str(mesh.state(name))]
    answer = mesh.execute(words, ("run",), json_output=False)
    assert answer.stderr.count("error: ") == 1, answer
    return answer.status, answer.stderr


def test_a_second_daemon_on_a_state_folder_is_refused(place):
    status, text = daemon_ends(place.mesh, "beta")
    assert status == CONFLICT
    assert "already running" in text
    assert place.mesh.cli("beta", "status").status == 0


def test_a_port_in_use_is_named(process_mesh):
    mesh = process_mesh(0)
    mesh.init("alpha")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        mesh._configure("alpha", "listen", json.dumps(address))
        status, text = daemon_ends(mesh, "alpha")
    assert status == CONFLICT
    assert f"{address} is already in use" in text


def test_a_state_folder_of_a_newer_version_is_left_alone(process_mesh):
    mesh = process_mesh(0)
    mesh.init("alpha")
    version = mesh.state("alpha") / "version"
    version.write_text("999\n")
    before = {path: path.stat().st_mtime_ns for path in mesh.state("alpha").rglob("*") if path.name != "lock"}
    status, text = daemon_ends(mesh, "alpha")
    assert status == 1
    assert "newer version" in text
    after = {path: path.stat().st_mtime_ns for path in mesh.state("alpha").rglob("*") if path.name != "lock"}
    assert {path: stamp for path, stamp in after.items() if path.is_file()} == {
        path: stamp for path, stamp in before.items() if path.is_file()
    }


@pytest.mark.parametrize(
    ("wrong", "line"),
    [("listen = [", 4), ('colour = "red"', 4), ("preset = 7", 4)],
    ids=["no TOML", "an unknown key", "a wrong type"],
)
def test_a_damaged_configuration_is_refused_with_its_line(process_mesh, wrong, line):
    mesh = process_mesh(0)
    mesh.init("alpha")
    path = mesh.state("alpha") / "config.toml"
    lines = [row for row in path.read_text("utf-8").splitlines() if not row.startswith(wrong.split()[0])]
    at = next(number for number, row in enumerate(lines) if row.startswith("server ="))
    lines.insert(at, wrong)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    status, text = daemon_ends(mesh, "alpha")
    assert status == USAGE
    found = int(text.split(", line ")[1].split(":")[0])
    assert found in ({at + 1} if "[" not in wrong else range(at + 1, at + 4)), text


def test_a_daemon_that_does_not_run_is_named_with_what_to_do(process_mesh):
    mesh = process_mesh(0)
    mesh.init("alpha")
    check(mesh.cli("alpha", "status", "--timeout", "0.5s"), UNAVAILABLE, "daemon-not-running")
    check(mesh.cli("nobody", "status", "--timeout", "0.5s"), UNAVAILABLE, "state-missing")


def test_what_needs_an_absent_administrator_ends_in_time_and_says_so(process_mesh):
    mesh = process_mesh(2)
    mesh.kill("alpha")

    def told() -> Answer | None:
        answer = mesh.cli("beta", "server", "list", "--timeout", "1s")
        assert answer.status == UNAVAILABLE, str(answer)
        return answer if answer.error_code == "no-admin" else None  # else it was too slow to hear of it

    check(wait_for(told, what="nobody is in office"), UNAVAILABLE, "no-admin")
    assert mesh.ok("beta", "status")["admin"] is None


def test_a_source_that_is_away_waits_and_goes_on_when_it_is_back(process_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=20)
    mesh = process_mesh(3)
    (mesh.folder / "disk").mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--server", "gamma", "--path", str(mesh.folder / "disk"))
    mesh.kill("beta")
    run = mesh.ok("alpha", "backup", f"beta:{tree}", "--to", "any")["run"]
    row = wait_for(
        lambda: next((row for row in mesh.jobs() if row["reason"] == "source-unreachable"), None), every_s=0.1
    )
    assert row["reason_fields"]["source"] == "beta"
    mesh.run("beta")
    assert mesh.ok("alpha", "job", "watch", run)["state"] == "succeeded"


def test_a_device_that_vanished_fails_its_backup_and_comes_back_with_all_it_had(process_mesh, tmp_path):
    tree = make_tree(tmp_path / "data", files=20)
    mesh = process_mesh(1)
    disk, away = mesh.folder / "disk", mesh.folder / "away"
    disk.mkdir()
    mesh.ok("alpha", "device", "add", "disk", "--server", "alpha", "--path", str(disk))
    made = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "any", "--wait")
    disk.rename(away)
    disk.mkdir()  # as an empty mount point looks
    run = mesh.ok("alpha", "backup", f"alpha:{tree}", "--to", "any")["run"]
    seen = wait_for(
        lambda: next(
            (
                row
                for row in mesh.jobs("alpha", "--state", "all")
                if row["run"] == run
                and (
                    row["state"] == "failed"
                    or row["reason"] in {"device-offline", "device-not-reachable", "no-idle-device"}
                )
            ),
            None,
        ),
        30.0,
        every_s=0.2,
    )
    assert list(disk.iterdir()) == [], "an empty folder was taken for the device"
    disk.rmdir()
    away.rename(disk)
    if seen["state"] != "failed":
        assert mesh.ok("alpha", "job", "watch", run, timeout_s=90.0)["state"] == "succeeded"
    assert made["set"] in {row["id"] for row in mesh.sets()}
    assert mesh.ok("alpha", "verify", made["set"], "--wait")["state"] == "succeeded"
    shutil.rmtree(mesh.folder / "disk", ignore_errors=True)
