"""The program as it is started: quick, complete in its help, and only what is there."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_world import FakeDaemon, Shell, material
from cyclopts import App

from caso_mesh import __version__
from caso_mesh.cli.explaining import make_app
from caso_mesh.cli.options import interactive
from caso_mesh.cli.program import hoist, run, wants_json
from caso_mesh.cli.table import COMMANDS
from caso_mesh.model import outcomes as o
from caso_mesh.model import views as v
from caso_mesh.model.errors import LISTED_BY, NotFound

#: What daily commands never import: slow to load, or none of their business.
HEAVY = ("numpy", "zeroconf", "aiosqlite", "pyfastcdc", "rich.progress")
#: What those do not need either that have a plain line, no terminal, and keys of the usual kind: each of these takes longer
#: to load than the answer takes to come.
SLOW = ("aiohttp", "asyncio", "cyclopts", "rich", "logging", "cryptography.x509", "caso_mesh.wire.link",
        "cryptography.hazmat.primitives.serialization", "caso_mesh.identity.certificates", "caso_mesh.cli.explaining",
        "urllib.request", "subprocess", "threading")  # fmt: skip
#: Modules of a daily command, those of Python itself included. More of them want a reason.
MOST_MODULES = 210
ROOMS = ("vault", "catalog", "planning", "control", "database", "consensus", "server", "admin", "api", "jobs",
         "devices", "sources", "discovery", "journal", "daemon", "config")  # fmt: skip

#: Commands of the interface that the product does not have yet.
ABSENT = ("policy apply",)


def loaded_by(*argv: str, environment: dict[str, str]) -> tuple[int, list[str], str]:
    """Exit status, loaded modules and output of the program in a fresh interpreter."""
    code = (
        "import sys\nfrom caso_mesh.cli.program import run\nstatus = run(sys.argv[1:])\n"
        "print('\\nLOADED ' + ' '.join(sys.modules), file=sys.stderr)\nsys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    loaded = next(line for line in done.stderr.splitlines() if line.startswith("LOADED "))
    return done.returncode, loaded.split()[1:], done.stdout


@pytest.fixture
def environment(state: Path) -> dict[str, str]:
    return {**os.environ, "CASO_MESH_STATE": os.fspath(state)}


def assert_light(loaded: list[str]) -> None:
    for name in (*HEAVY, *(f"caso_mesh.{room}" for room in ROOMS)):
        assert not [each for each in loaded if each == name or each.startswith(f"{name}.")], name


async def test_a_daily_command_imports_only_what_it_needs(daemon: FakeDaemon, environment: dict[str, str]) -> None:
    daemon.answers["status"] = v.StatusView("tests", "alpha", None, 1, (), 1, 0, 0)
    status, loaded, out = await asyncio.to_thread(loaded_by, "status", "--json", environment=environment)
    assert status == 0
    assert out.startswith('{"mesh":"tests"')
    assert_light(loaded)
    assert not {*SLOW} & {*loaded}
    assert len(loaded) < MOST_MODULES, sorted(loaded)


async def test_a_command_that_waits_for_its_job_imports_no_more(
    daemon: FakeDaemon, environment: dict[str, str]
) -> None:
    result = o.RunResult("j", "j@1", "j@1#1", "succeeded", "full", "a", "d", "s", (), 1, 2, 3, 4, 0.5, ())
    daemon.answers["backup"] = o.Submitted("j", "j@1", "backup-alpha")
    daemon.answers["run.follow"] = o.RunProgress("j@1", "succeeded", (), result)
    argv = ("backup", "alpha:/x", "--to", "any", "--type", "incremental", "--wait", "--json")
    status, loaded, out = await asyncio.to_thread(loaded_by, *argv, environment=environment)
    assert (status, out.startswith('{"job":"j"')) == (0, True)
    assert not {*SLOW} & {*loaded}
    assert len(loaded) < MOST_MODULES, sorted(loaded)


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["backup", "--help"], ["run", "--help"]], ids=" ".join)
def test_help_needs_no_network_at_all(argv: list[str], environment: dict[str, str]) -> None:
    status, loaded, out = loaded_by(*argv, environment=environment)
    assert status == 0
    assert out
    assert_light(loaded)
    assert "aiohttp" not in loaded
    assert "caso_mesh.wire.websocket" not in loaded
    assert "cryptography" not in loaded


def leaves(app: App, *before: str) -> list[list[str]]:
    """Every command, as words."""
    found = []
    for name in app:
        if name.startswith("-"):
            continue
        inner = leaves(app[name], *before, name)
        found += inner or [[*before, name]]
    return found


def test_every_command_has_help_and_every_option_of_it_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    commands = leaves(make_app())
    assert len(commands) > 45
    for words in commands:
        app = make_app()
        for word in words:
            app = app[word]
        assert app.help, words
        for argument in app.assemble_argument_collection():
            if argument.show:
                assert argument.parameter.help, (words, argument.name)
        assert run([*words, "--help"]) == 0
        assert f"Usage: caso-mesh {' '.join(words)}" in capsys.readouterr().out


def test_what_is_not_there_names_the_command_that_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    for kind, command in LISTED_BY.items():
        assert run([*command.split(), "--help"]) == 0
        assert (
            f"Usage: caso-mesh {command.partition(' --')[0].removesuffix(' POLICY').removesuffix(' PATTERN')}"
            in capsys.readouterr().out
        )
        assert NotFound(kind=kind, name="x").hint == f'"caso-mesh {command}" shows what there is.'
    assert NotFound(kind="entry", name="x").hint == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["selection", "create"], "selection create needs NAME, as in: caso-mesh selection create office "),
        (["backup", "alpha:/etc"], "backup needs --to, as in: caso-mesh backup "),
        (["voter", "add"], "voter add needs NAME. All that it takes: caso-mesh voter add --help."),
        (["restore", "--to"], "--to needs a value after it."),
        (["run", "--presett", "lan"], "Did you mean --preset?\n"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_with_how_it_may_look(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    assert said in capsys.readouterr().err


def test_commands_that_the_product_does_not_have_are_absent(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ABSENT:
        *nouns, last = line.split()
        app = make_app()
        for noun in nouns:
            app = app[noun] if noun in app else App()
        assert last not in app, line
        assert run([*line.split(), "x"]) == 2, line
    assert run(["device", "add", "x", "--kind", "object", "--url", "s3://b/p"]) == 2


def test_every_listed_command_is_shown_by_the_help_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert run([]) == 0
    assert capsys.readouterr().out == shown
    for _, name, _, text in COMMANDS:
        assert f"  {name}: {text}" in shown


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_the_manual_is_shown_by_page_and_the_help_by_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help"]) == 0
    assert "wire" in capsys.readouterr().out
    assert run(["help", "wire"]) == 0
    assert capsys.readouterr().out.startswith("# The wire")
    assert run(["help", "job", "list"]) == 0
    assert "Usage: caso-mesh job list" in capsys.readouterr().out
    assert run(["help", "job", "nonsense"]) == 2


def test_python_dash_m_is_the_program(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "caso_mesh", "nonsense", "--json"], capture_output=True, check=False, env=environment
    )
    assert done.returncode == 2
    assert done.stdout.startswith(b'{"error":{"code":"usage"')


def test_a_locale_without_the_letters_of_a_name_does_not_end_the_program(
    state: Path, environment: dict[str, str]
) -> None:
    ascii_only = {**environment, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "caso_mesh", "help", "bücher"], capture_output=True, check=False, env=ascii_only
    )
    assert done.returncode == 2
    folder = state.rename(state.parent / "zustände")
    done = subprocess.run(
        [sys.executable, "-m", "caso_mesh", "service", "install", "--print", "--state", os.fspath(folder)],
        capture_output=True, check=False, env=ascii_only,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"zust\xe4nde" in done.stdout


def test_a_reader_that_leaves_early_is_no_failure(environment: dict[str, str]) -> None:
    pages = subprocess.Popen(
        [sys.executable, "-m", "caso_mesh", "help", "threat-model"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
    )  # fmt: skip
    assert pages.stdout is not None
    assert pages.stderr is not None
    pages.stdout.close()
    with pages.stderr:
        assert pages.stderr.read() == b""
    assert pages.wait() == 0


def test_global_options_move_behind_the_command_but_not_behind_a_double_dash() -> None:
    assert hoist(["--state", "/s", "--json", "job", "list"]) == ["job", "list", "--state", "/s", "--json"]
    assert hoist(["--timeout=1s", "restore", "x", "--", "-y"]) == ["restore", "x", "--timeout=1s", "--", "-y"]
    assert hoist(["status", "--json"]) == ["status", "--json"]
    assert hoist(["--state"]) == ["--state"]
    assert wants_json(["catalog", "ls", "x", "--json"])
    assert not wants_json(["catalog", "find", "--", "--json"])


def test_nobody_is_asked_in_a_pipe() -> None:
    assert not interactive()


async def test_ctrl_c_ends_waiting_with_a_word_on_the_job_and_no_traceback(
    daemon: FakeDaemon, environment: dict[str, str]
) -> None:
    asked = asyncio.Event()

    def running(_: object) -> o.RunProgress:
        asked.set()
        return o.RunProgress("job1@1", "running", ())

    daemon.answers.update({"verify": o.Submitted("job1", "job1@1", "v"), "run.follow": running})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "caso_mesh", "verify", "set1", "--wait",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
    )  # fmt: skip
    await asked.wait()
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, out) == (130, b"")
    assert err == b"The job goes on. Watch it with: caso-mesh job watch job1@1\n"


async def test_a_state_folder_of_somebody_else_is_refused_with_advice(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("caso_mesh.identity.store.read_private", closed)
    told = await shell("status")
    assert told.status == 4
    assert str(shell.state) in told.err
    assert material().keys.id not in told.err


@pytest.mark.parametrize("closed", ["2", "1"])
def test_a_closed_stream_does_not_change_the_exit_status_of_what_it_would_not_have_used(
    environment: dict[str, str], closed: str
) -> None:
    words = f"exec {closed}>&-; exec {sys.executable} -m caso_mesh status --state /nonexistent --timeout 1s"
    done = subprocess.run(["sh", "-c", words], capture_output=True, check=False, env=environment)
    assert done.returncode == 3


def test_output_that_finds_no_room_is_a_failure(environment: dict[str, str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "caso_mesh", "help", "wire"], stdout=full, stderr=subprocess.PIPE, check=False,
            env=environment,
        )  # fmt: skip
    assert done.returncode not in {0, 3}
    assert b"No space left" in done.stderr
