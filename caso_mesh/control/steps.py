"""The steps that a file of the mesh comes to, as they are found, and the mistakes in it, each with its line."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from caso_mesh.control.exporting import plain
from caso_mesh.control.lines import Lines, Path
from caso_mesh.model import documents as d
from caso_mesh.model import notice_docs as n
from caso_mesh.model.commands import Command
from caso_mesh.model.errors import CasoError
from caso_mesh.model.report_schedules import ReportScheduleDoc
from caso_mesh.model.units import format_number
from caso_mesh.model.views import Change, Mistake

D = TypeVar("D", bound=Struct)
_LONGEST = 4 << 20
#: Of documents that cannot be empty, ones that nothing is wrong with: other keys are tried with these.
_SOUND: dict[type[Struct], Struct] = {
    d.EntryDoc: d.EntryDoc(""),
    d.ErrorRuleDoc: d.ErrorRuleDoc(()),
    d.TemplateDoc: d.TemplateDoc("full", schedule="daily 22:00"),
    d.JobDoc: d.JobDoc((), "any", "daily 22:00"),
    n.MailServerDoc: n.MailServerDoc("", ""),
    ReportScheduleDoc: ReportScheduleDoc("overnight-summary", "daily 07:00", ()),
}


class Step(Struct, frozen=True):
    """One command, what it changes in words, and where the file says so."""

    path: Path
    command: Command
    change: Change


class Steps:
    """Of one file. Sections add to it, in an order of theirs; what is wrong is told at its line and left out."""

    def __init__(self, text: str) -> None:
        self.lines = Lines(text)
        self.steps: list[Step] = []
        self.mistakes: list[Mistake] = []
        #: Names and ids of what cannot be made: what names them is not wrong by itself.
        self.failed: set[str] = set()
        self.told: set[Path] = set()

    def add(self, path: Path, command: Command, kind: str, name: str, old: Any, new: Any) -> None:
        """A step that makes ``new`` (a document) of ``old``, or out of nothing."""
        change = Change("create" if old is None else "change", kind, name, _differences(old, new))
        self.steps.append(Step(path, command, change))

    def mistake(self, path: Path, error: CasoError, *written: str) -> None:
        """At the line where one of ``written``, or of what the error names, stands below ``path``."""
        values = [*written, *(each for each in error.fields.values() if isinstance(each, str) and each not in path)]
        self._tell(path, error.message, error.hint, line=self.lines.of_value(path, values))

    def _tell(self, path: Path, text: str, hint: str = "", *, line: int | None = None) -> None:
        self.mistakes.append(Mistake(self.lines.of(path) if line is None else line, ".".join(path), text, hint))
        self.told.add(path)

    def is_told(self, path: Path) -> bool:
        """Whether something is said to be wrong there, or below."""
        return any(each[: len(path)] == path for each in self.told)

    # --- reading ---

    def read(self, text: str, known: Sequence[str]) -> dict[str, Any]:
        """The tables of the file by name, after telling of those that are not ``known``."""
        if len(text) > _LONGEST:
            self._tell((), f"The file is longer than {_LONGEST} characters.")
            return {}
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"at line (\d+)", str(error))
            self._tell((), f"It is not TOML: {error}.", line=int(found[1]) if found else len(text.splitlines()))
            return {}
        for name in [name for name in data if name not in known]:
            self._unknown((name,), name, known)
        for name, value in data.items():
            if not isinstance(value, dict):
                self._tell((name,), f'"{name}" is a table: write [{name}.NAME].')
        return {name: value for name, value in data.items() if isinstance(value, dict)}

    def each(
        self, section: str, kind: type[D], table: Mapping[str, Any], build: Callable[[str, D, Path], None]
    ) -> None:
        """Builds what a section names, by documents of one kind."""
        for name, value in table.items():
            path: Path = (section, name)
            doc = self.convert(kind, value, path)
            if doc is not None:
                try:
                    build(name, doc, path)
                except CasoError as error:
                    self.mistake(path, error)
            if self.is_told(path):
                self.failed.add(name)

    def convert(self, kind: type[D], value: Any, path: Path) -> D | None:
        """``value`` as a document, without the keys that are wrong, after telling of these; ``None`` if it is no table."""
        if not isinstance(value, dict):
            self._tell(path, f'"{".".join(path)}" is a table, with the keys {", ".join(kind.__struct_fields__)}.')
            return None
        hints = get_type_hints(kind)
        fields: dict[str, Any] = {}
        for key, item in value.items():
            at = (*path, key)
            if key not in hints:
                self._unknown(at, key, kind.__struct_fields__)
            elif key == "templates" and isinstance(item, dict):
                found = {name: self.convert(d.TemplateDoc, each, (*at, name)) for name, each in item.items()}
                fields[key] = {name: each for name, each in found.items() if each is not None}
            elif key == "entries" and isinstance(item, list):
                entries = [self.convert(d.EntryDoc, each, at) for each in item]
                fields[key] = tuple(each for each in entries if each is not None and each.path)
            else:
                converted = self.value(hints[key], item, at)
                if not self.is_told(at):
                    fields[key] = converted
        for field in msgspec.structs.fields(kind):
            if field.required and field.name not in fields:
                if field.name not in value:
                    self._tell((*path, field.name), f'"{field.name}" is missing.')
                fields[field.name] = getattr(_SOUND[kind], field.name)
        return kind(**fields)

    def value(self, kind: Any, item: Any, path: Path) -> Any:
        """``item`` as a value of that kind, or ``None`` after telling what it is not."""
        try:
            return msgspec.convert(item, kind, strict=True)
        except msgspec.ValidationError as error:
            self._tell(path, f'"{path[-1]}": {str(error).replace("`", "").partition(" - at")[0]}.')
            return None

    def _unknown(self, path: Path, name: str, known: Iterable[str]) -> None:
        self._tell(path, f'"{name}" is not known here.', f"Known are {', '.join(known)}.")

    def sound(self, doc: D, path: Path, make: Callable[[D], object]) -> D:
        """``doc`` if something can be made of it, or else what is right in it, after telling of every key, and every part
        of a list, that is wrong."""
        try:
            make(doc)
        except CasoError as error:
            whole = error
        else:
            return doc
        base: Any = _SOUND.get(type(doc)) or type(doc)()
        right, wrong = dict[str, Any](), False
        for key in doc.__struct_fields__:
            value = getattr(doc, key)
            parts = value if isinstance(value, tuple) else (value,)
            kept = []
            for part in parts:
                one = (part,) if isinstance(value, tuple) else part
                try:
                    make(replace(base, **{key: one}))
                except CasoError as error:
                    wrong = True
                    self.mistake((*path, key), error, *([part] if isinstance(part, str) else ()))
                else:
                    kept.append(part)
            if isinstance(value, tuple):
                right[key] = tuple(kept)
            elif kept:
                right[key] = value
        if not wrong:
            self.mistake(path, whole)
            return base
        return replace(base, **right)


def _differences(old: Any, new: Any) -> tuple[str, ...]:
    """One line for each value that is another one."""
    before = {} if old is None else _flat(old)
    after = _flat(new)
    lines = []
    for key in dict.fromkeys([*before, *after]):
        was, now = before.get(key), after.get(key)
        if was != now:
            lines.append(f"{key}: {_shown(was)} -> {_shown(now)}" if old is not None else f"{key}: {_shown(now)}")
    return tuple(lines)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in plain(value).items():
        if isinstance(item, dict):
            found.update(_flat(item, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = item
    return found


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return format_number(value)
    return "as usual" if value is None else json.dumps(value, ensure_ascii=False)
