"""``caso-mesh alert watch``: prints what changes, until it is interrupted; and the table of categories."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Self

import pytest
from cli_notice_cases import ALERT
from msgspec.structs import replace

from caso_mesh.cli import alert
from caso_mesh.cli.options import Local
from caso_mesh.model.alert_calls import AlertFollow, AlertsNow
from caso_mesh.model.alerts import CATEGORIES
from caso_mesh.model.errors import NoAdmin, UsageError


class Interrupted(Exception):
    """Somebody pressed Ctrl-C."""


class Talk:
    """A connection that answers by a list, then is interrupted."""

    def __init__(
        self, answers: list[AlertsNow], name: str = "alert.follow", end: Callable[[], Exception] = Interrupted
    ) -> None:
        self.answers, self.asked, self.name, self.end = answers, list[AlertFollow](), name, end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def call(self, name: str, request: AlertFollow, reply: type[AlertsNow]) -> AlertsNow:
        assert name == self.name
        self.asked.append(request)
        if not self.answers:
            raise self.end()
        return self.answers.pop(0)


@pytest.mark.parametrize("json_lines", [False, True])
def test_what_is_open_is_printed_then_each_change_once(
    json_lines: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = replace(ALERT, id="al0", cleared="2025-01-01T00:00:09Z")
    answered = replace(ALERT, answered="2025-01-01T00:01:00Z", answered_by="ann", response="seen")
    over = replace(answered, cleared="2025-01-01T00:02:00Z")
    talk = Talk([
        AlertsNow("m1", (ALERT, old)),
        AlertsNow("m1", (ALERT, old)),
        AlertsNow("m2", (answered, old)),
        AlertsNow("m3", (over, old)),
    ])  # fmt: skip
    monkeypatch.setattr(alert, "connect", lambda common: talk)
    with pytest.raises(Interrupted):
        alert.watch(type_=("error",), json_lines=json_lines)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    if json_lines:
        assert [json.loads(line)["cleared"] for line in lines] == [None, None, "2025-01-01T00:02:00Z"]
    else:
        assert "device-gone" in lines[0] and "seen (by ann)" in lines[1] and "over" in lines[2]
    assert [request.known for request in talk.asked] == ["", "m1", "m1", "m2", "m3"]
    assert talk.asked[0].which.types == ("error",) and talk.asked[0].wait_s == 0.0 < talk.asked[1].wait_s


def test_every_category_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    alert.categories()
    shown = capsys.readouterr().out
    assert all(each.name in shown for each in CATEGORIES)


def test_a_watch_at_a_server_is_answered_by_it_alone_and_one_without_an_administrator_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Talk([AlertsNow("m1", (ALERT,))], "local.alert.follow")
    monkeypatch.setattr(alert, "connect", lambda common: own)
    with pytest.raises(Interrupted):
        alert.watch(local=Local(True))
    assert "device-gone" in capsys.readouterr().out
    with pytest.raises(UsageError, match="leave out --pool"):
        alert.watch(pool="west", local=Local(True))
    monkeypatch.setattr(alert, "connect", lambda common: Talk([], end=lambda: NoAdmin(server="beta")))
    with pytest.raises(NoAdmin):
        alert.watch()
    assert "shown and answered without one: --local" in capsys.readouterr().err
