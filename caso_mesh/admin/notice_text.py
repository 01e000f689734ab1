"""Notices as people read them: the subject says where and what, the text what it means and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from caso_mesh.model.alerts import BY_NAME, KINDS
from caso_mesh.model.notices import Message
from caso_mesh.model.units import format_instant
from caso_mesh.planning.notices import Form, Notice, Occurrence, Sort

#: So many are written out in one message; the others are counted.
_MOST_WRITTEN = 50
_RANK = {kind.value: rank for rank, kind in enumerate(KINDS)}


def message_of(notice: Notice) -> Message:
    """The message to its recipient."""
    about = notice.about
    if notice.form is Form.ONE:
        subject, text = _subject(about[0]), "\n".join(_written(about[0]))
    else:
        subject, text = _flapping(about) if notice.form is Form.FLAPPING else _digest(about)
    data: dict[str, Any] = {"form": notice.form.value, "events": [_data(each) for each in about[:_MOST_WRITTEN]]}
    if len(about) > _MOST_WRITTEN:
        data["more"] = len(about) - _MOST_WRITTEN
    kind = f"notice.{about[0].sort.value}" if notice.form is Form.ONE else f"notice.{notice.form.value}"
    return Message(notice.key, subject, text, recipients=(notice.recipient,), data=data, type=kind)


def _subject(each: Occurrence) -> str:
    at = f" at {each.where}" if each.where else ""
    match each.sort:
        case Sort.ALERT:
            return f"{each.type}{at}: {each.category}: {each.text}"
        case Sort.OVER:
            return f"over{at}: {each.category}: {each.text}"
        case Sort.END:
            return f"{each.end}{at}: {each.text}"


def _written(each: Occurrence) -> list[str]:
    lines = [each.text, ""]
    if each.where:
        lines.append(f"Server:    {each.where}")
    if each.sort is Sort.END:
        lines += [f"Run:       {each.object}", f"Ended:     {format_instant(each.at_ns)}, {each.end}", ""]
        if each.do:
            lines += [f"What to do: {each.do}", ""]
        return [*lines, f"All of it: caso-mesh why {each.object}"]
    known = BY_NAME.get(each.category)
    since = "Since:     " if known is not None and known.standing else "When:      "
    lines += [f"Alert:     {each.category}, {each.type}", f"{since}{format_instant(each.at_ns)}"]
    if each.sort is Sort.OVER or each.over_at_ns is not None:
        lines += [f"Over:      {format_instant(each.over_at_ns or each.at_ns)}", ""]
        return lines
    if known is not None:
        lines += ["", f"What it means: {known.text}", f"What to do:    {each.do or known.do}"]
    if each.key.startswith("run/"):
        lines += ["", f"All of it:      caso-mesh why {each.object}"]
    if each.alert:
        lines += ["", f"Answer it with: caso-mesh alert answer {each.alert}"]
    return lines


def _line(each: Occurrence) -> str:
    at = f" at {each.where}" if each.where else ""
    over = f" (over since {format_instant(each.over_at_ns)})" if each.over_at_ns and each.sort is Sort.ALERT else ""
    what = {Sort.ALERT: each.type, Sort.OVER: "over", Sort.END: each.end}[each.sort]
    category = f" {each.category}:" if each.category else ""
    return f"{format_instant(each.at_ns)}  {what}{at}:{category} {each.text}{over}"


def _digest(about: tuple[Occurrence, ...]) -> tuple[str, str]:
    counts = Counter(each.type if each.sort is Sort.ALERT else each.sort.value for each in about)
    words = {Sort.OVER.value: "over", Sort.END.value: "ends of runs"}
    ordered = sorted(counts.items(), key=lambda item: (_RANK.get(item[0], len(_RANK)), item[0]))
    told = ", ".join(f"{count} {words.get(kind, kind)}" for kind, count in ordered)
    subject = f"{len(about)} messages in one{_places(about)}: {told}"
    urgent = sorted(about, key=lambda each: (_RANK.get(each.type, len(_RANK)), each.at_ns, each.key))
    lines = [
        "There were more messages than you get in an hour; these are the others.",
        "",
        *map(_line, urgent[:_MOST_WRITTEN]),
    ]
    if len(about) > _MOST_WRITTEN:
        lines += [f"... and {len(about) - _MOST_WRITTEN} more."]
    return subject, "\n".join([*lines, "", "All that is open: caso-mesh alert list"])


def _flapping(about: tuple[Occurrence, ...]) -> tuple[str, str]:
    last = about[-1]
    at = f" at {last.where}" if last.where else ""
    times = sum(each.sort is not Sort.OVER for each in about)
    count = "once" if times == 1 else f"{times} times"
    over = last.sort is Sort.OVER or last.over_at_ns is not None
    subject = f"comes and goes{at}: {last.category}: {count} more; {'over now' if over else 'it stands now'}"
    lines = [
        f"{last.text}",
        "",
        f"This came {count} more since it was told last; it is told of at most each half hour now.",
        f"It {'is over now' if over else 'stands now'}.",
        "",
        *map(_line, about[-_MOST_WRITTEN:]),
    ]
    return subject, "\n".join(lines)


def _places(about: Iterable[Occurrence]) -> str:
    names = sorted({each.where for each in about if each.where})
    if not names:
        return ""
    return f" from {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _data(each: Occurrence) -> dict[str, Any]:
    """What a program is told; nothing is in it that is not in the text for people."""
    return {
        "event": each.sort.value,
        "key": each.key,
        "at": format_instant(each.at_ns),
        "type": each.type,
        "category": each.category,
        "server": each.where,
        "object": each.object,
        "alert": each.alert,
        "state": each.end,
        "text": each.text,
        **({"do": each.do} if each.do and each.sort is not Sort.OVER else {}),
    }
