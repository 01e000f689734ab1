"""Writes the pages of the manual that are made of tables in ``model/``: calls, settings, errors,
metrics.

``scripts/make-docs`` writes them into this folder; a test fails when they are not what these functions return.
"""

from __future__ import annotations

import enum
import itertools
import re
import types
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import NODEFAULT, Struct, structs

from caso_mesh.docs.metrics_page import metrics_page
from caso_mesh.model.alerts import CATEGORIES
from caso_mesh.model.calls import CALLS, SHOWN, Call
from caso_mesh.model.errors import CasoError, all_errors
from caso_mesh.model.presets import LINK_SILENCE_S, PRESETS, TIMINGS
from caso_mesh.model.settings import SETTINGS, Setting
from caso_mesh.model.states import REASON_ENDS, REASON_TEXT
from caso_mesh.model.units import format_duration, format_number

_NOTE = "<!-- Written by scripts/make-docs from caso_mesh/model. Change it there. -->\n"


def pages() -> dict[str, str]:
    """Name of each generated page and its text."""
    return {
        "calls": calls_page(),
        "settings": settings_page(),
        "errors": errors_page(),
        "metrics": _NOTE + "\n" + metrics_page(_table),
        "alerts": alerts_page(),
    }


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


# --- calls -----------------------------------------------------------------------------------------------------------

_GROUPS: dict[str, str] = {
    "anonymous": "Joining",
    "node": "Between nodes",
    "person": "People",
}

_PLACES = {
    "local": "the server that is asked",
    "admin": "the administrator in office",
    "node": "the server at the other end",
    "own": "the server that is asked, by itself",
}


def _group(call: Call) -> str:
    return call.needs if call.needs in {"anonymous", "node"} else "person"


def _scope(call: Call) -> str:
    if call.scope == SHOWN:
        return " (shown)"
    return f" ({', '.join(f'`{field}`' for field, _ in call.scope)})" if call.scope else ""


def calls_page() -> str:
    """``calls.md``: the table of calls and every record that travels in it."""
    out = [
        _NOTE,
        """# The table of calls

Every operation of the product, once: the command line, other programs and the nodes themselves all use these calls. Over a
link (`wire.md`) a call's parameters and its answer are msgpack maps; what `--json` prints is the same answer as JSON, with
the same keys. That is a contract: version 1. Within a version keys are only added, never renamed, removed or given
another meaning; readers ignore keys they do not know.

- *Role* is the least role that may call it: `viewer` < `restore` < `operator` < `admin`. An operator has a role in the whole
  mesh, or on some servers and pools. Where fields are named, it is enough to have it on all servers that they concern: those
  named, the members of a pool, those whose files a set, job, run or attempt is about, those that reach a device, the one that
  an alert is about. *Shown*: it is enough on some server, and only what concerns those is shown. Anywhere else it is needed
  in the whole mesh; what a server answers for itself, on that server. `node` calls come from members of the mesh, `anonymous`
  ones need no certificate.
- *Answered by*: any server takes a call for the administrator and passes it on to the one in office. People's calls are
  signed by the operator's key, so that whoever passes them on cannot change them.
- Calls marked *changes* carry a request id: repeated with the same id they have no second effect. They are audited.
- Instants are text, RFC 3339 in UTC with `Z`. `path` is escaped for people (bytes that are not UTF-8, control characters
  and backslash appear as `\\xHH`), `path_b64` is exact: base64 of the bytes; `mtime_ns` is a whole number as text.
- An error is `{"error": {"code", "message", "hint"}}` in JSON, `{"code", "fields"}` on the wire (`errors.md`).
""",
    ]
    for group, calls in itertools.groupby(sorted(CALLS, key=lambda c: list(_GROUPS).index(_group(c))), key=_group):
        rows = [
            (
                f"`{call.name}`",
                call.text + (" *Changes.*" if call.changes else ""),
                call.needs + _scope(call),
                _PLACES[call.place],
                _link(call.request),
                _link(call.reply),
            )
            for call in calls
        ]
        out.append(
            f"## {_GROUPS[group]}\n\n" + _table(("call", "what", "role", "answered by", "parameters", "answer"), rows)
        )
    out.append("## Records\n\n" + "\n".join(map(_record, _records())))
    reasons = [
        (f"`{reason.value}`", _placeholders(text), _placeholders(REASON_ENDS[reason]))
        for reason, text in REASON_TEXT.items()
    ]
    out.append(
        "## Reasons for waiting\n\n`reason` of a job that waits, what a person reads, and what would end it (`reason_ends`); "
        "the names in braces are its `reason_fields`. With a field `expected`, that is when the first job in the way is "
        "expected to end.\n\n" + _table(("reason", "text", "what would end it"), reasons)
    )
    return "\n".join(out)


def _records() -> list[type[Struct]]:
    """Every record that a call carries, each once, in the order of first use."""
    found: dict[type[Struct], None] = {}

    def visit(kind: Any) -> None:
        if isinstance(kind, type) and issubclass(kind, Struct):
            if kind in found:
                return
            found[kind] = None
            for field in get_type_hints(kind).items():
                if field[0] in kind.__struct_fields__:
                    visit(field[1])
        for argument in get_args(kind):
            visit(argument)

    for call in CALLS:
        visit(call.request)
        visit(call.reply)
    return sorted(found, key=lambda kind: kind.__name__)


def _link(kind: type[Struct]) -> str:
    return f"[{kind.__name__}](#{kind.__name__.lower()})"


def _record(kind: type[Struct]) -> str:
    """A section: the record's docstring and a table of its fields."""
    text = " ".join((kind.__doc__ or "").split()).replace("``", "`")
    if text.startswith(f"{kind.__name__}("):  # made by the interpreter, says nothing
        text = ""
    out = f"### {kind.__name__}\n\n" + (text + "\n\n" if text else "")
    hints = get_type_hints(kind)
    rows = [
        (f"`{field.encode_name}`", _type_text(hints[field.name]), _default_text(field))
        for field in structs.fields(kind)
    ]
    tag = kind.__struct_config__.tag
    if tag is not None:
        rows.insert(0, (f"`{kind.__struct_config__.tag_field}`", f"`{tag}`", ""))
    return out + (_table(("field", "type", "default"), rows) if rows else "No fields.\n")


_NAMES: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    bytes: "bytes",
    type(None): "null",
    Any: "anything",
}


def _type_text(kind: Any) -> str:
    if kind in _NAMES:
        return _NAMES[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        return " or ".join(_type_text(each) for each in arguments)
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in arguments)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"list of {_plural(arguments[0])}"
        return "list of " + ", ".join(_type_text(each) for each in arguments)
    if origin is dict:
        return f"map of {_type_text(arguments[0])} to {_type_text(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return " or ".join(f"`{each.value}`" for each in kind)
    if isinstance(kind, type) and issubclass(kind, Struct):
        return _link(kind)
    raise TypeError(f"no words for the type {kind}")


def _plural(kind: Any) -> str:
    return f"({_type_text(kind)})" if get_origin(kind) is not None else _type_text(kind)


def _default_text(field: structs.FieldInfo) -> str:
    default = field.default
    if default is NODEFAULT:
        default = NODEFAULT if field.default_factory is NODEFAULT else field.default_factory()
    if default is NODEFAULT:
        return ""
    if isinstance(default, Struct):
        return type(default).__name__
    return f"`{msgspec.json.encode(default).decode()}`"


# --- settings --------------------------------------------------------------------------------------------------------


def settings_page() -> str:
    """``settings.md``: every setting with defaults and bounds."""
    rows = [
        (
            f"`{setting.name}`",
            _value(setting, setting.default),
            ", ".join(f"{preset} {_value(setting, value)}" for preset, value in setting.presets.items()) or "the same",
            f"{_value(setting, setting.minimum)} to {_value(setting, setting.maximum)}",
            setting.text,
        )
        if isinstance(setting, Setting)
        else (f"`{setting.name}`", f"`{setting.default}`", "the same", setting.form, setting.text)
        for setting in SETTINGS
    ]
    return "\n".join(
        [
            _NOTE,
            """# Settings of the mesh

`caso-mesh settings list` shows what is in force and where it comes from, `caso-mesh settings set NAME VALUE` changes it
for the whole mesh, with `--pool P` for the servers of a pool, with `--server S` for one server; the narrower wins.
`caso-mesh settings unset NAME` returns to what the wider scope says.

Names in `-s` are seconds and take `90s`, `15m`, `12h`, `30d` too. A preset (`init --preset`, `join --preset`) moves the
defaults of those that depend on the network.

`bandwidth-limit` is a text: pieces separated by `;`, of which the first that fits the time of day holds. A piece is days
(`mon`, `sat,sun`, `mon-fri`; none = all), hours (`08:00-18:00`; `22:00-06:00` goes on into the next day; none = all) and
a rate (`20MB`, `512kB`, `1GiB`: a size per second; `none` or `0` = no limit). Where no piece fits there is no limit.
`caso-mesh settings set bandwidth-limit "zone Europe/Berlin; mon-fri 08:00-18:00 20MB; 50MB"` allows 20 MB/s on weekdays
in working hours of Berlin and 50 MB/s else.

`joblog-forwarding` is one of three words, or hours as in the window of a selection list:
`caso-mesh settings set joblog-forwarding "zone Europe/Berlin; mon-fri 20:00-06:00; sat,sun" --pool branches`. Without a zone
hours are UTC.

What belongs to one server alone (where it listens, what it allows to read and write) is not here but in `config.toml` of its
state folder; see the guide.
""",
            _table(("setting", "default", "in other presets", "bounds", "what it does"), rows),
            """
## Presets

What a preset sets beside the defaults above. They are no settings: a server judges its links before it knows any, and
elections go at the pace of the first server's preset. Voters that are linked over slow lines want a mesh whose first
server has the preset `wan`.
""",
            _table(("preset", "for", "a silent link is lost after", "a voter stands for election after"), _presets()),
        ]
    )


def _presets() -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, text in PRESETS.items():
        silence_s, (shortest_s, longest_s) = LINK_SILENCE_S[name], TIMINGS[name].election_s
        links = f"{silence_s:g} s, and {silence_s / 2:g} s without an answer to a ping"
        rows.append(
            (f"`{name}`", text, links, f"{shortest_s:g} to {longest_s:g} s without a word of the administrator")
        )
    return rows


def _value(setting: Setting, value: float) -> str:
    if not setting.name.endswith("-s"):
        return format_number(value)
    days = value / 86400.0
    if value < 60:
        return f"{value:g} s"
    text = f"{days:g} days" if days >= 2 and days == int(days) else format_duration(value)
    return re.sub(r"(\d)m 00s", r"\1 min", re.sub(r"h 00m", " h", text))


# --- errors ----------------------------------------------------------------------------------------------------------

_CATEGORIES: dict[str, str] = {
    "usage": "The command was not understood",
    "not-found": "There is no such thing",
    "conflict": "It does not fit what is there",
    "security": "It is not allowed",
    "unavailable": "Nobody can answer now",
    "state": "The state folder and the daemon",
    "device": "Devices",
    "data": "What lies in devices and journals",
    "source": "What is read and restored",
    "protocol": "A peer broke the protocol",
    "general": "All else",
}

_STATUSES = (
    (0, "done"),
    (1, "the job or the operation failed"),
    (2, "usage: the command was not understood"),
    (3, "nothing could answer in time: no daemon, no administrator in office, server not linked"),
    (4, "refused: role, ticket, protection"),
    (5, "not found"),
    (6, "conflict"),
    (7, "done, with exceptions"),
)


def errors_page() -> str:
    """``errors.md``: every error of the tree, by category."""
    out = [
        _NOTE,
        """# Errors

Every failure that a person or a program sees has a *code* that never changes: the same on the command line, in `--json`,
on the wire and in the history of jobs. On the command line an error is one line on stderr: what happened, to which object,
and what to do next. With `--json` it is the one document on stdout:

    {"error": {"code": "not-found", "message": "There is no device \\"disk9\\".", "hint": "\\"caso-mesh device list\\" shows what there is."}}

Names in braces are filled in; on the wire they travel as `fields`. *Again* says that the same request may succeed later
without anything being changed.

## Exit statuses
""",
        _table(("status", "meaning"), [(str(status), text) for status, text in _STATUSES]),
    ]
    by_category: dict[str, list[type[CasoError]]] = {}
    for error in all_errors().values():
        by_category.setdefault(error.category, []).append(error)
    for category in sorted(by_category, key=list(_CATEGORIES).index):
        rows = [
            (
                f"`{error.code}`",
                str(error.exit_status),
                "yes" if error.retryable else "",
                _placeholders(error.template()),
                _placeholders(error.hint_template()),
            )
            for error in by_category[category]
        ]
        out.append(
            f"## {_CATEGORIES[category]} (`{category}`)\n\n"
            + _table(("code", "exit", "again", "message", "what to do"), rows)
        )
    return "\n".join(out)


def _placeholders(text: str) -> str:
    return re.sub(r"\{(\w+)\}", r"*{\1}*", text).strip()


# --- alerts ----------------------------------------------------------------------------------------------------------


def alerts_page() -> str:
    """``alerts.md``: the table of categories."""
    head = """# Alerts

An alert says that something needs somebody's attention. The administrator shows those of all servers: `caso-mesh alert list`.
Its *type* says how much: `attention-required` waits for an answer, `error` is a backup or a protection
that is missing, `warning` may become one, `information` is neither.

One that *stands* is about a condition and is over by itself with it; it stays in the list until then, or until it is
answered. All others stay until they are answered. `alert-answer-after` answers what nobody answers after a time; an answer
of which a category says *by a person* is never given so, since it lets something happen.
"""
    rows = [
        (
            f"`{each.name}`",
            ", ".join(kind.value for kind in each.types),
            "stands" if each.standing else "",
            each.text,
            each.do,
            "" if each.response else "by a person",
        )
        for each in CATEGORIES
    ]
    return f"{_NOTE}\n{head}\n" + _table(("category", "type", "", "what it means", "what to do", "answer"), rows)
