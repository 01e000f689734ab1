"""Media and how long their sets are kept: which medium takes the next set, and when a set may go."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from caso_mesh.model.storage import BackupSet, Device, MediaSet, Medium, MediumState

_SECOND = 1_000_000_000
_PREFIX = 24


def medium_for(
    media: Sequence[Medium],
    media_set: MediaSet,
    device: str,
    server: str,
    server_name: str,
    now_ns: int,
    retired: Collection[str] = (),
    formatted_at_ns: int = 0,
) -> Medium:
    """The medium that ``server`` (id) appends its next set of ``media_set`` on ``device`` (id) to.

    The open one among ``media`` if there is one that is not ``retired`` (labels) and not of before the device was erased
    (``formatted_at_ns``), else a new one: its label is the next after all labels of the same
    prefix among ``media``, which should be all that the server ever wrote, on whatever device.
    """
    mine = [row for row in media if (row.device, row.media_set, row.server) == (device, media_set.name, server)]
    opened = [row for row in mine if medium_state(row, media_set, now_ns) is MediumState.APPENDABLE]
    usable = [row for row in opened if row.label not in retired and row.opened_at_ns >= formatted_at_ns]
    if usable:
        return max(usable, key=lambda row: row.label)
    prefix = label_prefix(server_name, server)
    labels = [row.label for row in media] + list(retired)  # of one that is retired a disk put back may know nothing
    numbers = [int(label[len(prefix) :]) for label in labels if _is_label(label, prefix)]
    return Medium(
        label=f"{prefix}{max(numbers, default=0) + 1:06d}",
        device=device,
        media_set=media_set.name,
        server=server,
        opened_at_ns=now_ns,
        last_write_at_ns=now_ns,
        closes_at_ns=_after(now_ns, media_set.append_s),
    )


def label_prefix(server_name: str, server: str) -> str:
    """What the labels of a server begin with: its name in capitals. Names over 24 characters are cut and get four of
    their node id, so that two long names with one beginning do not share their labels."""
    name = server_name if len(server_name) <= _PREFIX else f"{server_name[: _PREFIX - 5]}-{server[:4]}"
    return f"{name.upper()}-"


def after_write(medium: Medium, bytes: int, now_ns: int) -> Medium:
    """The medium after a set of ``bytes`` stored bytes was written to it, ending now."""
    return msgspec.structs.replace(
        medium,
        last_write_at_ns=max(now_ns, medium.last_write_at_ns),
        bytes=medium.bytes + bytes,
        sets=medium.sets + 1,
    )


def medium_state(medium: Medium, media_set: MediaSet, now_ns: int) -> MediumState:
    """Appendable until it closes, at its time or its size; then protected; then full while it has sets, recyclable when it
    has none."""
    over = medium.closes_at_ns is not None and now_ns >= medium.closes_at_ns
    if not over and (media_set.medium_bytes is None or medium.bytes < media_set.medium_bytes):
        return MediumState.APPENDABLE
    until = protected_until_ns(medium, media_set)
    if until is None or now_ns <= until:
        return MediumState.PROTECTED
    return MediumState.FULL if medium.sets > 0 else MediumState.RECYCLABLE


def shown_state(medium: Medium, media_set: MediaSet | None, device: Device | None, now_ns: int) -> MediumState:
    """What a person is shown: also that it was retired, or came with a device that its server does not see any more, so
    that nothing is appended to it."""
    if device is not None and device.imported is not None:
        return MediumState.IMPORTED
    if device is not None and medium.label in device.retired:
        return MediumState.RETIRED
    if media_set is None:
        return MediumState.IMPORTED
    state = medium_state(medium, media_set, now_ns)
    carried = device is not None and device.path_on(medium.server) is None
    return MediumState.IMPORTED if state is MediumState.APPENDABLE and carried else state


def media_of(sets: Iterable[BackupSet]) -> list[Medium]:
    """The media of an imported device, by its sets: nobody in this mesh has records of them."""
    found: dict[tuple[str, str], Medium] = {}
    for each in sets:
        known = found.get((each.server, each.medium)) or Medium(
            label=each.medium,
            device=each.device,
            media_set=each.media_set,
            server=each.server,
            opened_at_ns=each.started_at_ns,
            last_write_at_ns=each.ended_at_ns,
            closes_at_ns=None,
        )
        written = after_write(known, each.bytes_stored, each.ended_at_ns)
        found[each.server, each.medium] = msgspec.structs.replace(
            written, opened_at_ns=min(known.opened_at_ns, each.started_at_ns)
        )
    return [found[key] for key in sorted(found)]


def protected_until_ns(medium: Medium, media_set: MediaSet) -> int | None:
    """The end of the overwrite protection, counted from the end of the last write; ``None`` = without end."""
    return _after(medium.last_write_at_ns, media_set.protection_s)


def may_delete_at(until_ns: int | None, now_ns: int) -> bool:
    """Whether a protection that ends at ``until_ns`` (``None`` = without end) is over."""
    return until_ns is not None and now_ns > until_ns


def protection_end_ns(last_write_ns: int, media_set: MediaSet) -> int | None:
    """The end of the overwrite protection of a medium by its last write; ``None`` = without end."""
    return _after(last_write_ns, media_set.protection_s)


def set_expiry(backup_set: BackupSet, medium: Medium | None, media_set: MediaSet) -> tuple[int | None, int | None]:
    """``(expires_at_ns, protected_until_ns)``, each ``None`` = without end.

    A set goes when now is later than both its retention (from its end) and its medium's protection; until the
    protection ends nobody may delete it. Without ``medium`` (its record is not here) the protection counts from the
    end of the set itself.
    """
    if medium is None:
        protected = _after(backup_set.ended_at_ns, media_set.protection_s)
    else:
        # A medium's record may be older than the set that was just written to it.
        protected = _after(max(medium.last_write_at_ns, backup_set.ended_at_ns), media_set.protection_s)
    kept = _after(backup_set.ended_at_ns, media_set.keep_s)
    return (None if kept is None or protected is None else max(kept, protected)), protected


def _after(at_ns: int, seconds: float | None) -> int | None:
    return None if seconds is None else at_ns + round(seconds * _SECOND)


def _is_label(label: str, prefix: str) -> bool:
    number = label[len(prefix) :]
    return label.startswith(prefix) and number.isascii() and number.isdigit()
