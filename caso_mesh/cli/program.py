"""The program: one command of the table, loaded when it is called; errors as one line and an exit status."""

from __future__ import annotations

import gc
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from caso_mesh.cli import output
from caso_mesh.cli.grammar import Group, read
from caso_mesh.cli.table import place_of
from caso_mesh.model.errors import FAILED, CasoError, InternalError

#: Set to anything: failures of this program itself show their traceback.
DEBUG_VARIABLE = "CASO_MESH_DEBUG"
#: As shells have it: 128 + SIGINT.
_INTERRUPTED = 130


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
    """``run`` for callers that have an event loop already, which goes on meanwhile."""
    import asyncio

    as_json = wants_json(argv)
    try:
        # daily commands wait for their answers without a loop
        outcome = await asyncio.to_thread(parse(argv))
        return (await outcome if inspect.iscoroutine(outcome) else outcome) or 0
    except Exception as error:  # as in ``run``
        return failed(error, as_json=as_json)


def parse(argv: list[str]) -> Callable[[], Any]:
    """The command that ``argv`` asks for, with its arguments bound. Raises ``UsageError``."""
    words = hoist(argv)
    plain = _read(words)
    if plain is not None:
        return plain
    from caso_mesh.cli import explaining

    return explaining.parse(words)


def _read(words: list[str]) -> Callable[[], Any] | None:
    """A line that is plainly right."""
    place = place_of(words[0]) if words else None
    if place is None:
        return None
    module, attribute = place
    command, rest = getattr(importlib.import_module(module), attribute), words[1:]
    while isinstance(command, Group):
        if not rest or rest[0] not in command.commands:
            return None
        command, rest = command.commands[rest[0]], rest[1:]
    return read(command, rest)


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
    """Lets ``--state``, ``--context``, ``--timeout`` and ``--json`` stand before the command too, and an option take a lone
    ``-``, which is standard input, after a space."""
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
    words: list[str] = []
    for word in rest[:end]:
        if word == "-" and words and words[-1].startswith("--") and "=" not in words[-1]:
            words[-1] += "=-"
        else:
            words.append(word)
    return words + moved + rest[end:]
