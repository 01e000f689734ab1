"""The program: its commands by name, each loaded when it is called; errors as one line and an exit status."""

from __future__ import annotations

import gc
import inspect
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from cyclopts import App, CycloptsError, Group, Parameter

from caso_mesh import __version__
from caso_mesh.cli import output
from caso_mesh.model.errors import FAILED, CasoError, InternalError, UsageError

#: Set to anything: failures of this program itself show their traceback.
DEBUG_VARIABLE = "CASO_MESH_DEBUG"
#: As shells have it: 128 + SIGINT.
_INTERRUPTED = 130

#: Group, command, where it is, and what it is for (shown by ``caso-mesh --help`` without loading any of them).
COMMANDS: tuple[tuple[str, str, str, str], ...] = (
    ("Daily", "status", "status:status", "The mesh on one line."),
    ("Daily", "backup", "backup:backup", "Back up paths of servers, now or by a schedule."),
    ("Daily", "restore", "restore:restore", "Restore a backup set or parts of it."),
    ("Daily", "cat", "cat:cat", "Print one file as it was in a backup set."),
    ("Daily", "verify", "verify:verify", "Read back and check every byte of a backup set."),
    ("Daily", "job", "job:app", "Jobs, their runs and logs: list, show, watch, cancel, hold ..."),
    ("What was backed up", "set", "set:app", "Backup sets."),
    ("What was backed up", "catalog", "catalog:app", "Files in backup sets: browse, find, versions."),
    ("The mesh", "server", "server:app", "Servers: list, approve, pause, resume, remove ..."),
    ("The mesh", "pool", "pool:app", "Media server pools."),
    ("The mesh", "device", "device:app", "Storage devices."),
    ("The mesh", "mediaset", "mediaset:app", "Media sets: how long sets are kept."),
    ("The mesh", "medium", "medium:app", "Media on the devices."),
    ("The mesh", "settings", "settings:app", "Settings of the mesh, of pools and of servers."),
    ("The mesh", "alert", "alert:app", "Alerts: list and answer."),
    ("The mesh", "audit", "audit:app", "Who did what."),
    ("The mesh", "kit", "kit:app", "Recovery kits: create, list."),
    ("The mesh", "token", "token:app", "Join links for new servers."),
    ("The mesh", "peer", "peer:app", "Static addresses of other servers."),
    ("This machine", "init", "init:init", "Make a new mesh with this server as its first."),
    ("This machine", "join", "join:join", "Make this server a member of a mesh, by a join link."),
    ("This machine", "run", "run:run", "The daemon, in the foreground."),
    ("Without a mesh", "recover", "recover:recover", "Rebuild the administrator out of a device and a recovery kit."),
    ("Without a mesh", "vault", "vault:app", "A device and its recovery kit: list and restore, with no mesh left."),
    ("This machine", "commands", "commands:app", "Entries of its own file that jobs may name: preset."),
    ("This machine", "service", "service:app", "The systemd service of the daemon."),
    ("This machine", "demo", "demo:demo", "A throw-away mesh of three servers: backs up, restores, compares."),
    ("This machine", "help", "help:help_", "The manual."),
)


def make_app() -> App:
    """The tree of commands. None of their modules is loaded."""
    app = App(
        name="caso-mesh",
        help="Backup for all your servers: one daemon everywhere, an elected administrator, one deduplicating store.",
        version=__version__,
        help_format="plaintext",
        default_parameter=Parameter(show_default=_shown_default),
        help_formatter="default" if output.is_terminal(sys.stdout) else "plain",
    )
    titles = list(dict.fromkeys(group for group, _, _, _ in COMMANDS))
    groups = {title: Group(title, sort_key=number) for number, title in enumerate(titles)}
    for number, (group, name, place, text) in enumerate(COMMANDS):
        app.command(f"caso_mesh.cli.{place}", name=name, help=text, group=groups[group], sort_key=number)
    return app


def _shown_default(default: Any) -> str | None:
    return None if default in (False, (), None) else str(default)


def run(argv: list[str]) -> int:
    """Runs one command line and gives its exit status."""
    # What is imported lives to the end: looking for garbage in it only costs. What runs for long turns it on again.
    gc.disable()

    def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
        import asyncio

        return asyncio.run(coroutine)

    as_json = wants_json(argv)
    try:
        outcome = parse(argv)()
        status = drive(outcome) if inspect.iscoroutine(outcome) else outcome
        sys.stdout.flush()
        return status or 0
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough. What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # the last line of defence of the program
        return failed(error, as_json=as_json)
    finally:
        gc.enable()


async def run_inside(argv: list[str]) -> int:
    """``run`` for callers that have an event loop already (the demo, tests)."""
    as_json = wants_json(argv)
    try:
        outcome = parse(argv)()
        return (await outcome if inspect.iscoroutine(outcome) else outcome) or 0
    except Exception as error:  # as in ``run``
        return failed(error, as_json=as_json)


def parse(argv: list[str]) -> Callable[[], Any]:
    """The command that ``argv`` asks for, with its arguments bound. Raises ``UsageError``."""
    try:
        command, bound, _ = make_app().parse_args(hoist(argv), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise UsageError(detail=" ".join(str(error).split()).rstrip(".")) from None
    return lambda: command(*bound.args, **bound.kwargs)


def failed(error: Exception, *, as_json: bool) -> int:
    """Says what went wrong and gives the exit status."""
    while isinstance(error, ExceptionGroup):
        known = [each for each in error.exceptions if isinstance(each, (CasoError, ExceptionGroup))]
        error = known[0] if known else error.exceptions[0]
    if isinstance(error, CasoError):
        output.error(error, as_json=as_json)
        return error.exit_status
    if os.environ.get(DEBUG_VARIABLE):
        raise error
    output.error(InternalError(detail=f"{type(error).__name__}: {error}"), as_json=as_json)
    return FAILED


def wants_json(argv: list[str]) -> bool:
    """Whether errors are to be a JSON document: known before the arguments are understood."""
    options = argv[: argv.index("--")] if "--" in argv else argv
    return "--json" in options or "--json-lines" in options


_GLOBAL_WITH_VALUE = ("--state", "--context", "--timeout")


def hoist(argv: list[str]) -> list[str]:
    """Lets ``--state``, ``--context``, ``--timeout`` and ``--json`` stand before the command too."""
    moved: list[str] = []
    position = 0
    while position < len(argv):
        word = argv[position]
        if word in _GLOBAL_WITH_VALUE and position + 1 < len(argv):
            moved += argv[position : position + 2]
            position += 2
        elif word == "--json" or word.startswith(tuple(f"{option}=" for option in _GLOBAL_WITH_VALUE)):
            moved.append(word)
            position += 1
        else:
            break
    rest = argv[position:]
    end = rest.index("--") if "--" in rest else len(rest)
    return rest[:end] + moved + rest[end:]
