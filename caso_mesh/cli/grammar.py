"""The command line as commands declare it, and a reader of lines with which nothing is wrong.

A command is a function; its parameters are its arguments and options, explained by ``Parameter``. All that may be said
of them, in help and in errors, ``explaining`` says by way of a library that takes longer to load than most commands to
work. A line that is plainly right needs none of it.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

T = TypeVar("T", bound=type)
Command = Callable[..., Any]

_SHARED = "__shared_options__"
_MISSING = object()


@dataclasses.dataclass(frozen=True)
class Parameter:
    """What a parameter is called on the command line (else by its own name), and its help. ``negative``: the names that
    turn it off, ``()`` for none, ``None`` for ``--no-NAME`` of a flag.
    ``at_least``: no number below it is taken."""

    name: str | None = None
    help: str | None = None
    negative: tuple[()] | None = None
    at_least: int | None = None


def shared(record: T) -> T:
    """A dataclass whose fields are options of each command that takes one."""
    setattr(record, _SHARED, True)
    return record


def is_shared(hint: Any) -> bool:
    """Whether a parameter of this type stands for the options in it."""
    return isinstance(hint, type) and _SHARED in vars(hint)


class Group:
    """Commands below one word; some of them may be groups again."""

    def __init__(self, *, name: str, help: str) -> None:
        self.name = name
        self.help = help
        self.commands: dict[str, Command | Group] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self.commands)

    def group(self, *, name: str, help: str) -> Group:
        """Adds a group of commands below another word."""
        made = self.commands[name] = Group(name=name, help=help)
        return made

    def command(self, function: Command | None = None, *, name: str | None = None) -> Any:
        """Adds a command: ``@group.command``, or ``@group.command(name=...)``."""
        if function is None:
            return partial(self.command, name=name)
        self.commands[name or function.__name__] = function
        return function


class _Unclear(Exception):
    """The line may be right or wrong: somebody else shall say."""


class _Option(typing.NamedTuple):
    """One name of an option: the parameter and, if that is shared, the field of it; its type; what a flag sets; the least
    number that it takes."""

    parameter: str
    field: str | None
    kind: Any
    flag: bool | None
    least: int | None = None


def read(command: Command, words: Sequence[str]) -> Callable[[], Any] | None:
    """``command`` with the arguments that ``words`` are; ``None`` if they are not plainly right."""
    try:
        return _bound(command, words)
    except _Unclear:
        return None


def _bound(command: Command, words: Sequence[str]) -> Callable[[], Any]:
    parameters = inspect.signature(command).parameters.values()
    hints = typing.get_type_hints(command, include_extras=True)
    options = _options(parameters, hints)
    given: dict[tuple[str, str | None], Any] = {}
    places: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            places.append(_text(word))
            continue
        name, equals, value = word.partition("=")
        option = options.get(name)
        if option is None or (equals and option.flag is not None):
            raise _Unclear
        key = (option.parameter, option.field)
        if option.flag is not None:
            _once(given, key, option.flag)
            continue
        text = _text(value if equals else next(rest, "-"))
        if typing.get_origin(option.kind) is tuple:
            given.setdefault(key, []).append(_value(typing.get_args(option.kind)[0], text))
        else:
            _once(given, key, _at_least(option.least, _value(option.kind, text)))
    return partial(command, *_places(parameters, hints, places), **_named(parameters, hints, given))


def _options(parameters: Any, hints: dict[str, Any]) -> dict[str, _Option]:
    found: dict[str, _Option] = {}
    for parameter in parameters:
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        hint = hints[parameter.name]
        if not is_shared(hint):
            _add_option(found, parameter.name, None, hint)
            continue
        inner = typing.get_type_hints(hint, include_extras=True)
        for field in dataclasses.fields(hint):
            _add_option(found, parameter.name, field.name, inner[field.name])
    return found


def _add_option(found: dict[str, _Option], parameter: str, field: str | None, hint: Any) -> None:
    kind, says = _taken_apart(hint)
    name = says.name or f"--{(field or parameter).replace('_', '-')}"
    is_flag = kind is bool
    found[name] = _Option(parameter, field, kind, True if is_flag else None, says.at_least)
    if is_flag and says.negative is None:
        found[f"--no-{name[2:]}"] = _Option(parameter, field, kind, False)


def _taken_apart(hint: Any) -> tuple[Any, Parameter]:
    """The type without ``None``, and what is said of it."""
    says = Parameter()
    if typing.get_origin(hint) is Annotated:
        hint, *more = typing.get_args(hint)
        says = next((each for each in more if isinstance(each, Parameter)), says)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        kinds = [each for each in typing.get_args(hint) if each is not type(None)]
        if len(kinds) != 1:
            raise _Unclear
        (hint,) = kinds
    return hint, says


def _places(parameters: Any, hints: dict[str, Any], texts: list[str]) -> list[Any]:
    values: list[Any] = []
    left = list(texts)
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            kind, _ = _taken_apart(hints[parameter.name])
            values += [_value(kind, text) for text in left]
            left = []
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            if left:
                values.append(_value(_taken_apart(hints[parameter.name])[0], left.pop(0)))
            elif parameter.default is parameter.empty:
                raise _Unclear
            else:
                values.append(parameter.default)
        elif parameter.kind is not parameter.KEYWORD_ONLY:
            raise _Unclear
    if left:
        raise _Unclear
    return values


def _named(parameters: Any, hints: dict[str, Any], given: dict[tuple[str, str | None], Any]) -> dict[str, Any]:
    ready = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    named: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        hint = hints[parameter.name]
        if is_shared(hint):
            fields = {field: value for (name, field), value in ready.items() if name == parameter.name and field}
            if fields:
                named[parameter.name] = hint(**fields)
        else:
            value = ready.get((parameter.name, None), _MISSING)
            if value is not _MISSING:
                named[parameter.name] = value
            elif parameter.default is parameter.empty:
                raise _Unclear
    return named


def _value(kind: Any, text: str) -> Any:
    if kind is str:
        return text
    if kind is Path:
        return Path(text)
    if kind is int and text.isascii() and text.isdigit():
        return int(text)
    if typing.get_origin(kind) is Literal and text in typing.get_args(kind):
        return text
    raise _Unclear


def _at_least(least: int | None, value: Any) -> Any:
    if least is not None and value < least:
        raise _Unclear
    return value


def _text(word: str) -> str:
    if not word or word.startswith("-"):
        raise _Unclear
    return word


def _once(given: dict[tuple[str, str | None], Any], key: tuple[str, str | None], value: Any) -> None:
    if key in given:
        raise _Unclear
    given[key] = value
