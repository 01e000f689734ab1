"""Hours in which a server sends nothing to others: who waits for their end, and who need not."""

from __future__ import annotations

import datetime

import msgspec
import pytest
from planning.problems import NOW, SECOND, device, part, reading, server, to
from planning.test_planning_placement import SRC, TWO, placed

from caso_mesh.model.errors import InvalidValue
from caso_mesh.model.states import JobKind, WaitReason
from caso_mesh.model.units import format_instant
from caso_mesh.planning.placement import place
from caso_mesh.planning.window import shut_until_ns

OPENS = NOW + 3600 * SECOND
SHUT = {"src": OPENS}
WAITS = {"r": WaitReason.BANDWIDTH_WINDOW}


def at(text: str) -> int:
    return round(datetime.datetime.fromisoformat(text).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("limit", "now", "opens"),
    [
        ("none", "2025-01-06T12:00+00:00", None),
        ("mon-fri 08:00-18:00 20MB; 50MB", "2025-01-06T12:00+00:00", None),
        ("zone UTC; mon-fri 08:00-18:00 closed; 50MB", "2025-01-06T12:30+00:00", "2025-01-06T18:00+00:00"),
        ("zone UTC; mon-fri 08:00-18:00 closed; 50MB", "2025-01-06T18:00+00:00", None),
        ("zone UTC; mon-fri 08:00-18:00 closed; 50MB", "2025-01-05T12:00+00:00", None),
        ("zone UTC; 12:00-13:00 1MB; closed", "2025-01-06T13:00+00:00", "2025-01-07T12:00+00:00"),
        ("zone UTC; 22:00-06:00 closed", "2025-01-06T23:00+00:00", "2025-01-07T06:00+00:00"),
        # of the night in which the clock goes on by an hour
        ("zone Europe/Berlin; 22:00-06:00 closed", "2025-03-29T21:00+00:00", "2025-03-30T04:00+00:00"),
        ("zone UTC; closed", "2025-01-06T12:00+00:00", "2025-01-14T12:00+00:00"),
        ("zone Nowhere/Atall; closed", "2025-01-06T12:00+00:00", None),
    ],
)
def test_it_is_known_until_when_a_server_sends_nothing(limit: str, now: str, opens: str | None) -> None:
    assert shut_until_ns(limit, at(now) + 17 * SECOND) == (None if opens is None else at(opens))


def test_closed_hours_are_those_of_a_zone_that_the_administrator_knows_too() -> None:
    with pytest.raises(InvalidValue, match="closed"):
        shut_until_ns("mon 08:00-18:00 closed", NOW)


def test_a_backup_waits_until_its_source_sends_again_unless_a_device_is_at_the_source() -> None:
    given_out, reasons = placed(TWO, part("r"), shut=SHUT)
    assert (given_out, reasons) == ({}, WAITS)
    problem = msgspec.structs.replace(TWO, parts=(part("r"),), shut=SHUT)
    (waits,) = place(problem, NOW).waiting.values()
    assert waits.fields == {"servers": ["src"], "opens": format_instant(OPENS)}
    disks = (*TWO.devices, device("home", "src"))
    assert placed(TWO, part("r"), devices=disks, shut=SHUT)[0] == {"r": ("src", "home")}
    assert placed(TWO, part("r"), shut={"a": OPENS, "b": OPENS})[0], "who takes it need not send"
    assert placed(TWO, part("r", kind=JobKind.TEST_RUN), shut=SHUT)[0], "a test run moves nothing"
    second = part("r", target=to("device", "home"), second=to("device", "disk-a"))
    assert placed(TWO, second, devices=disks, shut=SHUT)[1] == WAITS


def test_a_restore_waits_for_a_server_that_sends_and_goes_where_nothing_is_sent() -> None:
    shared = (device("d", "a", "b", concurrency=4),)
    restore = reading("r", JobKind.RESTORE, "d")
    assert placed(TWO, restore, devices=shared, shut={"a": OPENS})[0] == {"r": ("b", "d")}
    assert placed(TWO, restore, devices=shared, shut={"a": OPENS + SECOND, "b": OPENS})[1] == WAITS
    assert placed(TWO, restore, devices=shared, shut=SHUT)[0], "who is restored to need not send"
    at_home = reading("r", JobKind.RESTORE, "d", source="a")
    assert placed(TWO, at_home, devices=shared, shut={"a": OPENS, "b": OPENS})[0] == {"r": ("a", "d")}


def test_a_copy_of_a_set_is_made_where_it_is_read_while_its_reader_sends_nothing() -> None:
    copy = part("r", kind=JobKind.DUPLICATE, device="disk-a")
    assert placed(TWO, copy, shut={"a": OPENS})[1] == WAITS
    disks = (*TWO.devices, device("disk-a2", "a"))
    assert placed(TWO, copy, devices=disks, shut={"a": OPENS})[0] == {"r": ("a", "disk-a2")}
    assert placed(TWO, copy, shut={"b": OPENS})[0] == {"r": ("b", "disk-b")}


def test_what_would_keep_it_waiting_beyond_these_hours_is_told_first() -> None:
    assert placed(TWO, part("r"), shut=SHUT, no_data_path=(("src", "a"), ("src", "b")))[1] == {
        "r": WaitReason.NO_DATA_PATH
    }
    few = (SRC, server("a", connected=False), server("b", connected=False))
    assert placed(TWO, part("r"), servers=few, shut=SHUT)[1] == {"r": WaitReason.NO_SERVER_REACHABLE}
    assert placed(TWO, reading("v", JobKind.VERIFY, "disk-a"), shut={"a": OPENS})[0], "nothing is sent for that"
