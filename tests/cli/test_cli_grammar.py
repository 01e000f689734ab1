"""Lines that are plainly right are read without cyclopts, and exactly as cyclopts reads them."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import shlex
import sys
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caso_mesh.cli import explaining
from caso_mesh.cli.examples import EXAMPLES
from caso_mesh.cli.grammar import Command, Group, read
from caso_mesh.cli.table import COMMANDS, place_of
from caso_mesh.model.errors import UsageError

PLAIN = (
    "status --json",
    "status --state /s --timeout 5s --context office",
    "backup alpha:/x beta:/y --to any --type full --exclude a --exclude b --wait --json",
    "backup --to=device:d alpha:@dump --verify --one-file-system",
    "backup alpha:/x --to any --no-verify",
    "restore SET /a /b --to beta:/there --strip --overwrite older --wait --json-lines",
    "restore SET",
    "cat SET /path --escaped",
    "verify SET --priority high",
    "job list --state running --state /folder/x --limit 7 --json",
    "job watch RUN --json-lines",
    "device add d --server beta --path /x --concurrency 3 --low-space 10GB",
    "device add d --kind shared --on a=/x --on b=/y",
    "kit create /file --from /earlier --passphrase-file /p",
    "settings set stalled-after-s 90s --server beta",
    "catalog ls SET",
    "vault list /device --kit /k",
    "init --mesh m --server s --preset local --advertise a:1 --advertise b:2",
    "service install --print --user-name backup",
    "help job list",
)
#: What cyclopts may take or refuse: it is asked.
UNCLEAR = (
    "status --help",
    "status --nonsense",
    "status --json --json",
    "status --timeout",
    "status --timeout -5",
    "status --json=yes",
    "status extra",
    "backup alpha:/x",
    "backup alpha:/x --to any --type fast",
    "restore",
    "verify SET -- --json",
    "job",
    "job nonsense",
    "job list --limit many",
    "job list --limit -1",
    "job list --limit 0",
    "cat SET ''",
)


def found(words: list[str]) -> tuple[Command | None, list[str]]:
    """The command that ``words`` begin with, and what follows."""
    place = place_of(words[0])
    assert place is not None
    target = getattr(importlib.import_module(place[0]), place[1])
    rest = words[1:]
    while isinstance(target, Group):
        if not rest:
            return None, []
        target, rest = target.commands.get(rest[0]), rest[1:]
    return target, rest


def values(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        name: dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
        for name, value in arguments.items()
    }


def by_cyclopts(words: list[str]) -> dict[str, Any] | None:
    try:
        command, bound, _ = explaining.make_app().parse_args(words, exit_on_error=False, print_error=False)
    except Exception:
        return None
    bound = inspect.signature(command).bind(*bound.args, **bound.kwargs)
    bound.apply_defaults()
    return values(bound.arguments)


def plainly(words: list[str]) -> dict[str, Any] | None:
    command, rest = found(words)
    plain: Any = read(command, rest) if command is not None else None
    if plain is None:
        return None
    bound = inspect.signature(plain.func).bind(*plain.args, **plain.keywords)
    bound.apply_defaults()
    return values(bound.arguments)


@pytest.mark.parametrize("line", PLAIN)
def test_the_usual_lines_are_read_plainly_and_mean_what_cyclopts_says(line: str) -> None:
    words = line.split()
    read_plainly = plainly(words)
    assert read_plainly is not None
    assert read_plainly == by_cyclopts(words)


@pytest.mark.parametrize("line", UNCLEAR)
def test_whatever_may_be_wrong_is_left_to_cyclopts(line: str) -> None:
    assert plainly([word.strip("'") for word in line.split()]) is None


@pytest.mark.parametrize("command", EXAMPLES)
def test_every_example_is_of_its_command_and_right_and_shown_by_its_help(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in EXAMPLES[command]:
        words = shlex.split(line)
        assert line.startswith(f"{command} ")
        assert by_cyclopts(words) is not None
    explaining.make_app().help_print(command.split())
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"caso-mesh {' '.join(line.split())}" in shown for line in EXAMPLES[command])


def below(words: list[str], target: Any) -> list[list[str]]:
    if not isinstance(target, Group):
        return [words]
    return [line for name, sub in target.commands.items() for line in below([*words, name], sub)]


def commands() -> list[list[str]]:
    lines: list[list[str]] = []
    for _, name, place, _ in COMMANDS:
        module, _, attribute = place.partition(":")
        target = getattr(importlib.import_module(f"caso_mesh.cli.{module}"), attribute)
        lines += below([name], target)
    return lines


WORDS = (
    "alpha:/x",
    "SET",
    "/p",
    "7",
    "full",
    "high",
    "older",
    "15m",
    "-",
    "--",
    "",
    "--json=1",
    "-x",
    "ü",
    "no",
    "1e3",
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(commands()), st.data())
def test_a_line_that_is_read_plainly_means_what_cyclopts_says(line: list[str], data: st.DataObject) -> None:
    command, _ = found(line)
    assert command is not None
    names = [f"--{name.replace('_', '-')}" for name in inspect.signature(command).parameters]
    names += ["--state", "--timeout", "--context", "--json", "--wait", "--json-lines", "--no-verify", "--help"]
    names += [f"{name}=x" for name in names[:3]]
    rest = data.draw(st.lists(st.sampled_from([*names, *WORDS]), max_size=8))
    plain = plainly([*line, *rest])
    if plain is not None:
        assert plain == by_cyclopts([*line, *rest])


def test_every_parameter_of_every_command_is_of_a_kind_that_is_read_plainly() -> None:
    """Else a command would always need cyclopts, and nobody would notice but by the time it takes."""
    for line in commands():
        command, _ = found(line)
        assert command is not None
        words: list[str] = []
        for parameter in inspect.signature(command).parameters.values():
            if parameter.default is not parameter.empty:
                continue
            hint = typing.get_type_hints(command, include_extras=True)[parameter.name]
            kind = typing.get_args(hint)[0]
            value = typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Literal else "x"
            if parameter.kind is parameter.KEYWORD_ONLY:
                words += [says.name or f"--{parameter.name}" for says in typing.get_args(hint)[1:2]]
            words.append(value)
        assert plainly([*line, *words]) is not None, (line, words)


def test_what_is_wrong_is_said_as_cyclopts_says_it() -> None:
    with pytest.raises(UsageError, match="nonsense"):
        explaining.parse(["status", "--nonsense"])
    assert "cyclopts" in sys.modules
