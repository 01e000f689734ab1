"""Which medium takes the next set, and how long sets stay."""

from __future__ import annotations

import msgspec
import pytest

from caso_mesh.model.imported import Imported
from caso_mesh.model.states import BackupType
from caso_mesh.model.storage import (
    FACTORY_MEDIA_SETS,
    BackupSet,
    Device,
    DeviceKind,
    DevicePath,
    MediaSet,
    Medium,
    MediumState,
)
from caso_mesh.planning.media import (
    after_write,
    label_prefix,
    media_of,
    medium_for,
    medium_state,
    set_expiry,
    shown_state,
)

SECOND = 1_000_000_000
DAY = 86400 * SECOND
NOW = 20_000 * DAY
WEEKS, FOREVER = FACTORY_MEDIA_SETS


def next_medium(
    *media: Medium,
    media_set: MediaSet = WEEKS,
    device: str = "d",
    server: str = "id-a",
    name: str = "alpha",
    now: int = NOW,
):
    return medium_for(media, media_set, device, server, name, now)


def backup_set(ended_at_ns: int) -> BackupSet:
    return BackupSet(
        "set",
        "mesh",
        "vault",
        "src",
        "src",
        "id-a",
        "alpha",
        "d",
        "d",
        "ALPHA-000001",
        "keep-4-weeks",
        BackupType.FULL,
        "job",
        "run",
        "attempt",
        ended_at_ns - 5,
        ended_at_ns,
        (b"srv",),
        b"",
        b"",
        None,
        0,
        0,
        0,
        0,
        0,
        0,
    )


def test_the_first_medium_of_a_server_has_its_name_and_the_number_one():
    medium = next_medium()
    assert medium.label == "ALPHA-000001"
    assert medium.closes_at_ns == NOW + 6 * DAY
    assert (medium.sets, medium.bytes) == (0, 0)


def test_the_open_medium_takes_further_sets_until_its_append_period_ends():
    first = after_write(next_medium(), 100, NOW + 10)
    assert (first.sets, first.bytes, first.last_write_at_ns) == (1, 100, NOW + 10)
    assert next_medium(first, now=NOW + 6 * DAY - 1) == first
    assert next_medium(first, now=NOW + 6 * DAY).label == "ALPHA-000002"


@pytest.mark.parametrize("other", [{"device": "e"}, {"server": "id-b"}, {"media_set": FOREVER}])
def test_each_device_media_set_and_writing_server_has_its_own_medium(other):
    first = next_medium()
    second = next_medium(first, **other)
    assert second.label == "ALPHA-000002"


def test_labels_go_on_after_the_highest_and_do_not_mind_foreign_ones():
    first = next_medium()
    media = [
        msgspec.structs.replace(first, label=label, device="x")
        for label in ("ALPHA-000041", "ALPHA-2-000099", "BETA-000077", "ALPHA-x")
    ]
    assert next_medium(*media).label == "ALPHA-000042"


def test_long_names_with_one_beginning_do_not_share_labels():
    names = {label_prefix("backup-server-of-datacentre-" + end, id) for end, id in (("one", "abcd1"), ("two", "efgh2"))}
    assert len(names) == 2
    assert all(len(prefix) <= 25 for prefix in names)


def test_a_medium_without_append_limit_stays_appendable():
    medium = next_medium(media_set=FOREVER)
    assert medium.closes_at_ns is None
    assert medium_state(medium, FOREVER, NOW + 9999 * DAY) is MediumState.APPENDABLE


def test_a_closed_medium_is_protected_then_full_then_recyclable():
    medium = after_write(next_medium(), 1, NOW + DAY)
    assert medium_state(medium, WEEKS, NOW + 6 * DAY) is MediumState.PROTECTED
    assert medium_state(medium, WEEKS, NOW + 29 * DAY) is MediumState.PROTECTED
    assert medium_state(medium, WEEKS, NOW + 29 * DAY + 1) is MediumState.FULL
    assert medium_state(msgspec.structs.replace(medium, sets=0), WEEKS, NOW + 29 * DAY + 1) is MediumState.RECYCLABLE


def test_a_set_goes_after_the_later_of_its_retention_and_its_mediums_protection():
    early = backup_set(NOW)
    medium = after_write(after_write(next_medium(), 1, NOW), 1, NOW + 5 * DAY)
    assert set_expiry(early, medium, WEEKS) == (NOW + 33 * DAY, NOW + 33 * DAY)
    short = msgspec.structs.replace(WEEKS, protection_s=86400.0)
    assert set_expiry(early, medium, short) == (NOW + 28 * DAY, NOW + 6 * DAY)


def test_without_end_means_never():
    assert set_expiry(backup_set(NOW), next_medium(media_set=FOREVER), FOREVER) == (None, None)
    kept = msgspec.structs.replace(WEEKS, keep_s=None)
    assert set_expiry(backup_set(NOW), None, kept) == (None, NOW + 28 * DAY)


def test_a_mediums_record_older_than_the_set_does_not_shorten_its_protection():
    stale = msgspec.structs.replace(next_medium(), last_write_at_ns=NOW - 100 * DAY)
    assert set_expiry(backup_set(NOW), stale, WEEKS) == (NOW + 28 * DAY, NOW + 28 * DAY)


def test_a_medium_closes_at_its_size_when_that_comes_before_the_end_of_its_append_period():
    small = msgspec.structs.replace(WEEKS, medium_bytes=1000)
    medium = after_write(next_medium(media_set=small), 999, NOW)
    assert next_medium(medium, media_set=small).label == "ALPHA-000001"
    full = after_write(medium, 1, NOW)
    assert medium_state(full, small, NOW) is MediumState.PROTECTED
    assert next_medium(full, media_set=small).label == "ALPHA-000002"
    assert next_medium(full).label == "ALPHA-000001", "without a size only the time counts"


def test_a_label_that_was_retired_is_given_to_no_new_medium_by_a_server_that_forgot_the_old_one():
    """Found by the mesh simulator: a disk was put back to before the medium was begun."""
    assert medium_for([], WEEKS, "d", "id-a", "alpha", NOW, retired=("ALPHA-000001",)).label == "ALPHA-000002"
    assert medium_for([], WEEKS, "d", "id-a", "alpha", NOW, retired=("BETA-000004",)).label == "ALPHA-000001"


def test_a_retired_medium_takes_nothing_more_and_the_next_one_has_the_next_label():
    first = next_medium()
    second = medium_for([first], WEEKS, "d", "id-a", "alpha", NOW, retired=(first.label,))
    assert (first.label, second.label) == ("ALPHA-000001", "ALPHA-000002")
    device = Device("disk", "d", DeviceKind.DISK, "v", (DevicePath("id-a", "/d"),), retired=(first.label,))
    assert shown_state(first, WEEKS, device, NOW) is MediumState.RETIRED
    assert shown_state(second, WEEKS, device, NOW) is MediumState.APPENDABLE


def test_a_medium_that_came_with_a_device_from_another_server_is_imported_until_it_is_protected():
    medium = next_medium()
    carried = Device("disk", "d", DeviceKind.DISK, "v", (DevicePath("id-c", "/d"),))
    assert shown_state(medium, WEEKS, carried, NOW) is MediumState.IMPORTED
    assert shown_state(medium, WEEKS, carried, NOW + 6 * DAY) is MediumState.PROTECTED
    assert shown_state(medium, None, carried, NOW) is MediumState.IMPORTED, "nobody knows its media set"


def test_a_medium_of_an_imported_device_is_known_by_its_sets_and_always_imported():
    came = Imported("m", "meadow", {}, {}, {})
    device = Device(
        "old", "d", DeviceKind.DISK, "v", (DevicePath("id-b", "/x"),), retired=("ALPHA-000001",), imported=came
    )
    one = msgspec.structs.replace(backup_set(NOW - 9 * DAY), bytes_stored=5)
    two = msgspec.structs.replace(backup_set(NOW), bytes_stored=7)
    other = msgspec.structs.replace(one, medium="ALPHA-000002")
    first, second = media_of([two, other, one])
    assert (first.label, first.sets, first.bytes) == ("ALPHA-000001", 2, 12)
    assert (first.opened_at_ns, first.last_write_at_ns) == (one.started_at_ns, NOW)
    assert second.label == "ALPHA-000002"
    for media_set in (None, WEEKS, FOREVER):
        assert shown_state(first, media_set, device, NOW + 900 * DAY) is MediumState.IMPORTED
