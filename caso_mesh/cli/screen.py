"""The mesh on one screen: lines of words with a style each, cut to the width that there is. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from caso_mesh.cli import output
from caso_mesh.model import outcomes as o
from caso_mesh.model import views as v
from caso_mesh.model.overview import Overview
from caso_mesh.model.units import format_size

#: A piece of a line and its style.
Piece = tuple[str, str]
Line = list[Piece]
#: Width of the headings.
KEY = 13
_BAR = 12
_BAD_FIRST = ("no-communication", "stalled", "paused", "disabled", "failed", "timed-out", "missed")
_ALERT_STYLES = {"error": "bold red", "attention-required": "bold yellow", "warning": "yellow", "information": ""}
SORTS = ("server", "rate", "done", "name")


def status_lines(view: v.StatusView, seen: Overview | None) -> list[Line]:
    """At most 23 lines: one who looks at 24 of them sees the prompt, too."""
    in_office = f"{view.admin} (term {view.term})" if view.admin is not None else "none in office"
    lines = [
        _line("mesh", view.mesh),
        _line("server", f"{view.server}  {view.version}".rstrip()),
        _line("administrator", in_office, "" if view.admin is not None else "bold red"),
        _line("voters", ", ".join(view.voters) or "-"),
    ]
    if seen is None:
        lines.append(_line("servers", str(view.servers)))
        return [*lines, _line("running", str(view.running)), _line("alerts", str(view.alerts))]
    lines.append(_servers(seen))
    lines += [_more(f"{each.name}: {each.state}{_since(each.since)}", "yellow") for each in seen.away[:2]]
    rate = f", {format_size(int(seen.rate))}/s" if seen.rate else ""
    lines.append(_line("running", f"{seen.running_total}{rate}"))
    lines += [_more_pieces(job_pieces(each)) for each in seen.running[:4]]
    lines.append(waiting_line(seen))
    lines += [_more(f"{each.name}: {each.reason_text or each.reason}") for each in seen.waiting[:2]]
    lines.append(
        _line("alerts", *((f"{seen.alerts_total}: caso-mesh alert list", "bold") if seen.alerts_total else ("0",)))
    )
    lines += [_more(f"{each.category}: {each.text}", _ALERT_STYLES.get(each.alert, "")) for each in seen.alerts[:3]]
    lines += [night_line(seen), due_line(seen)]
    return lines


def job_pieces(job: o.JobView) -> Line:
    """A bar, a rate, and which job it is."""
    way = " -> ".join(each for each in (job.source, job.device or job.server) if each)
    rate = f"{format_size(int(job.rate))}/s" if job.rate else ""
    return [(bar(job.percent), "cyan"), (f" {rate:>10}  {job.name}  {way}", "")]


def bar(percent: float | None) -> str:
    """In letters that every terminal has."""
    if percent is None:
        return f"[{'?' * _BAR}]    "
    full = round(min(max(percent, 0.0), 100.0) / 100.0 * _BAR)
    return f"[{'#' * full}{'.' * (_BAR - full)}]{percent:3.0f}%"


def waiting_line(seen: Overview) -> Line:
    counts = ", ".join(f"{count} {reason}" for reason, count in list(seen.reasons.items())[:4])
    return _line("waiting", f"{seen.waiting_total}{': ' if counts else ''}{counts}")


def night_line(seen: Overview) -> Line:
    """What ended in the last day."""
    if not seen.ended:
        return _line("last 24 hours", "nothing ended")
    states = sorted(seen.ended, key=lambda state: (state not in _BAD_FIRST, state))
    counts = [f"{seen.ended[state]} {state}" for state in states]
    if seen.ended_badly:
        # the names belong to the bad ones, which come first
        bad = max(1, sum(state in _BAD_FIRST for state in states))
        names = f"{', '.join(seen.ended_badly[:3])}{' ...' if len(seen.ended_badly) > 3 else ''}"
        counts[bad - 1] += f" ({names})"
    return _line("last 24 hours", ", ".join(counts), "bold red" if seen.ended_badly else "green")


def due_line(seen: Overview) -> Line:
    text = ", ".join(f"{each.at[:16].replace('T', ' ')} UTC {each.name}" for each in seen.due[:3])
    return _line("next due", text or "nothing is scheduled")


def top_lines(view: v.StatusView, seen: Overview, height: int, sort: str, note: str = "") -> list[Line]:
    """As many rows as there is height for: what runs first, then what is wrong, then what waits."""
    head: list[Line] = [
        [("caso-mesh", "bold"), (f"  {view.mesh}  ", ""), (f"{view.admin or 'none in office'}", "bold"),
         (f" in office, term {view.term}  {seen.at[11:19]} UTC", "")],
        _servers(seen),
        waiting_line(seen),
        night_line(seen),
    ]  # fmt: skip
    rate = f"{format_size(int(seen.rate))}/s" if seen.rate else ""
    room = max(0, height - len(head) - 4)
    running = sorted(seen.running, key=_order(sort))
    alerts = list(seen.alerts)
    share = max(2, room // 5)
    shown_away = seen.away[: min(len(seen.away), share)]
    shown_alerts = alerts[: min(len(alerts), share)]
    left = max(1, room - len(shown_away) - len(shown_alerts) - min(len(seen.waiting), share))
    shown_running = running[:left]
    left = max(0, room - len(shown_away) - len(shown_alerts) - len(shown_running))
    lines = [*head, [(f"running {seen.running_total}  {rate}  by {sort}".ljust(30), "reverse")]]
    lines += [_job_row(each) for each in shown_running]
    lines.append([(f"waiting {seen.waiting_total}".ljust(30), "reverse")])
    lines += [[(f"{each.name}  ", ""), (each.reason_text or each.reason or "", "")] for each in seen.waiting[:left]]
    lines.append([(f"alerts {seen.alerts_total}".ljust(30), "reverse")])
    lines += [[(f"{each.category}: ", _ALERT_STYLES.get(each.alert, "")), (each.text, "")] for each in shown_alerts]
    lines += [[(f"{each.name} is {each.state}{_since(each.since)}", "yellow")] for each in shown_away]
    return [*lines[: max(1, height - 1)], [("q quit  s sort  ", "dim"), (note, "bold red")]][:height]


def _job_row(job: o.JobView) -> Line:
    done = f"{job.files} files" if job.files else job.state
    return [*job_pieces(job), (f"  {done}", ""), (f"  {job.path}" if job.path else "", "dim")]


def _order(sort: str) -> Callable[[o.JobView], tuple[float, str, str]]:
    def place(job: o.JobView) -> tuple[float, str, str]:
        number = {"rate": -job.rate, "done": -(job.percent or 0.0)}.get(sort, 0.0)
        return number, (job.server or "") if sort == "server" else "", job.name

    return place


def _servers(seen: Overview) -> Line:
    states = sorted(seen.servers, key=lambda state: (state not in _BAD_FIRST, state))
    text = ", ".join(f"{seen.servers[state]} {state}" for state in states)
    return _line("servers", f"{sum(seen.servers.values())}: {text}; {seen.connected} connected")


def _since(since: str | None) -> str:
    return f" since {since[:16].replace('T', ' ')} UTC" if since else ""


def _line(key: str, text: str, style: str = "") -> Line:
    return [(f"{key:<{KEY}}  ", "bold"), (text, style)]


def _more(text: str, style: str = "") -> Line:
    return _more_pieces([(text, style)])


def _more_pieces(pieces: Iterable[Piece]) -> Line:
    return [(" " * (KEY + 2), ""), *pieces]


def cut(line: Sequence[Piece], width: int | None) -> Line:
    """A line without anything that moves a cursor, and no longer than ``width``."""
    found, left = Line(), width
    for text, style in line:
        text = output.clean(text)
        if left is not None and len(text) > left:
            text = f"{text[: max(0, left - 3)]}..." if left >= 3 else text[:left]
        found.append((text, style))
        if left is not None:
            left -= len(text)
            if left <= 0:
                break
    return found
