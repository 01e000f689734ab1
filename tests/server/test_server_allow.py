"""What may be read and written on a server at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from caso_mesh.model.errors import NotAllowedHere, SourcePathMissing
from caso_mesh.server.allow import AllowList


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("open/sub", "secret", "open/state", "open/device"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def allow(home: Path) -> AllowList:
    place = str(home / "open")
    return AllowList("alpha", [place], [place], [f"{place}/state", f"{place}/device"])


@pytest.mark.parametrize(
    "path", ["secret", "open/..", "open/../secret", "open/sub/../..", "open/state", "open/state/x", "open/device/", "."]
)
def test_what_lies_outside_or_is_closed_is_neither_read_nor_written(home: Path, path: str) -> None:
    """``open/..`` was read before: only the folder of a root was resolved, and its last part was ".."."""
    raw = os.fsencode(home) + b"/" + path.encode()
    with pytest.raises(NotAllowedHere):
        allow(home).check_read(raw)
    with pytest.raises(NotAllowedHere):
        allow(home).check_write(raw)


@pytest.mark.parametrize("raw", [b"relative", b"", b"/open\0/x"])
def test_what_is_no_absolute_path_is_refused(home: Path, raw: bytes) -> None:
    with pytest.raises(NotAllowedHere):
        allow(home).check_read(raw)
    with pytest.raises(NotAllowedHere):
        allow(home).check_write(raw)


def test_a_symlink_leads_nobody_out(home: Path) -> None:
    (home / "open/link").symlink_to(home / "secret")
    (home / "secret/file").touch()
    inside = os.fsencode(home / "open/link/file")
    with pytest.raises(NotAllowedHere):
        allow(home).check_read(inside)
    with pytest.raises(NotAllowedHere):
        allow(home).check_write(os.fsencode(home / "open/link"))
    # the link itself is kept as a link
    assert allow(home).check_read(os.fsencode(home / "open/link")) == []


def test_a_symlink_to_an_own_device_does_not_open_it(home: Path) -> None:
    (home / "open/way").symlink_to(home / "open/device")
    with pytest.raises(NotAllowedHere):
        allow(home).check_write(os.fsencode(home / "open/way/x"))


def test_nobody_learns_what_else_lies_on_the_machine(home: Path) -> None:
    with pytest.raises(NotAllowedHere):
        allow(home).check_read(os.fsencode(home / "secret/nothing"))
    with pytest.raises(SourcePathMissing):
        allow(home).check_read(os.fsencode(home / "open/nothing"))


def test_own_places_inside_of_what_is_backed_up_are_left_out_with_a_warning(home: Path) -> None:
    warnings = allow(home).check_read(os.fsencode(home / "open"))
    assert len(warnings) == 2 and all("is left out" in warning for warning in warnings)
    assert AllowList("alpha", ["/"], ["/"], [str(home / "open/state")]).check_read(b"/") != []


def test_names_that_are_not_utf8_are_paths_like_others(home: Path) -> None:
    raw = os.fsencode(home) + b"/open/\xff\xfe"
    allow(home).check_write(raw)
    with pytest.raises(SourcePathMissing) as caught:
        allow(home).check_read(raw)
    caught.value.message.encode()  # it can be sent and printed
