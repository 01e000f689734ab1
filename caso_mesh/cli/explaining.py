"""Help, and what is wrong with a command line: by cyclopts, to which the commands are shown as it wants to see them."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

import cyclopts
from cyclopts import App, CycloptsError, MissingArgumentError

from caso_mesh import __version__
from caso_mesh.cli import examples, grammar, output
from caso_mesh.cli.table import COMMANDS, place_of
from caso_mesh.model.errors import UsageError


def make_app() -> App:
    """The tree of commands. None of their modules is loaded."""
    app = App(
        name="caso-mesh",
        help="Backup for all your servers: one daemon everywhere, an elected administrator, one deduplicating store.",
        version=__version__,
        help_format="plaintext",
        default_parameter=cyclopts.Parameter(show_default=_shown_default),
        help_formatter="default" if output.is_terminal(sys.stdout) else "plain",
    )
    titles = list(dict.fromkeys(group for group, _, _, _ in COMMANDS))
    groups = {title: cyclopts.Group(title, sort_key=number) for number, title in enumerate(titles)}
    for number, (group, name, _, text) in enumerate(COMMANDS):
        # a group, which has none, takes none either
        below = {"help_epilogue": examples.shown(name)} if name in examples.EXAMPLES else {}
        # cyclopts imports it when it is asked for: see __getattr__
        app.command(f"{__name__}:{name}", name=name, help=text, group=groups[group], sort_key=number, **below)
    return app


def parse(words: list[str]) -> Callable[[], Any]:
    """The command that ``words`` ask for, with its arguments bound. Raises ``UsageError``."""
    try:
        command, bound, _ = make_app().parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        if isinstance(error, MissingArgumentError) and error.argument is not None and not error.argument.tokens:
            if error.keyword is not None:
                raise UsageError(detail=f"{error.keyword} needs a value after it") from None
            raise UsageError(detail=_missing(" ".join(error.command_chain or ()), error.argument.name)) from None
        # it ends what it proposes with a question mark and a full stop
        detail = " ".join(str(error).split()).replace("?.", "?")
        if detail.endswith(", ..."):  # of many commands the first
            detail = f"{detail.removesuffix(', ...')} and others, which --help lists"
        raise UsageError(detail=detail.rstrip(".")) from None
    return lambda: command(*bound.args, **bound.kwargs)


def _missing(command: str, name: str) -> str:
    """Which argument is missing, and how the line may look."""
    lines = examples.EXAMPLES.get(command, ())
    shown = f", as in: caso-mesh {lines[0]}" if lines else ""
    return f"{command} needs {name}{shown}. All that it takes: caso-mesh {command} --help"


def __getattr__(name: str) -> Any:
    """The command ``name`` of the program as cyclopts takes it."""
    place = place_of(name)
    if place is None:
        raise AttributeError(name)
    module, attribute = place
    target = getattr(importlib.import_module(module), attribute)
    return _group(target, name) if isinstance(target, grammar.Group) else _shown(target)


def _group(group: grammar.Group, words: str) -> App:
    app = App(name=group.name, help=group.help)
    for name, sub in group.commands.items():
        below = f"{words} {name}"
        if isinstance(sub, grammar.Group):
            app.command(_group(sub, below), name=name)
        else:
            app.command(_shown(sub), name=name, help_epilogue=examples.shown(below))
    return app


def _shown_default(default: Any) -> str | None:
    return None if default in (False, (), None) else str(default)


def _shown(function: grammar.Command) -> Any:
    """The function with annotations of cyclopts."""
    assert isinstance(function, types.FunctionType)
    parts = function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    copy = types.FunctionType(*parts)
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__doc__, copy.__module__ = function.__doc__, function.__module__
    hints = typing.get_type_hints(function, include_extras=True)
    copy.__annotations__ = {name: _hint(hint) for name, hint in hints.items()}
    return copy


def _hint(hint: Any) -> Any:
    if grammar.is_shared(hint):
        return _record(hint)
    if typing.get_origin(hint) is not Annotated:
        return hint
    kind, *more = typing.get_args(hint)
    says = [_parameter(each) for each in more if isinstance(each, grammar.Parameter)]
    return Annotated[kind, *says] if says else kind


def _parameter(parameter: grammar.Parameter) -> cyclopts.Parameter:
    fields = {field.name: getattr(parameter, field.name) for field in dataclasses.fields(parameter)}
    least = fields.pop("at_least")
    if least is not None:
        fields["validator"] = cyclopts.validators.Number(gte=least)
    return cyclopts.Parameter(**{name: value for name, value in fields.items() if value is not None})


@cache
def _record(record: type) -> type:
    """A dataclass like ``record``, and one of its kind, whose fields cyclopts takes for options."""
    hints = typing.get_type_hints(record, include_extras=True)
    fields = [
        (field.name, _hint(hints[field.name]), dataclasses.field(default=field.default))
        for field in dataclasses.fields(record)
    ]
    # cyclopts takes what says it is of the standard library for a plain value
    place = {"__module__": record.__module__}
    made = dataclasses.make_dataclass(record.__name__, fields, bases=(record,), frozen=True, namespace=place)
    return cyclopts.Parameter(name="*")(made)
