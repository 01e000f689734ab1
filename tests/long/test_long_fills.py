"""A device is full at random moments: the backup says so and leaves nothing, earlier sets are whole, and with room again
the next backup succeeds."""

from __future__ import annotations

import time

import pytest
from long.fill_rounds import Fills
from mesh.mounts import MEBIBYTE


def fill_rounds(mesh, disk, seed: int, fills: int, server: str) -> Fills:
    """Until so many backups found the device full."""
    work = Fills(mesh, disk, seed)
    began = time.monotonic()
    print(f"seed {seed}")
    work.prepare(server)
    rounds = 0
    while work.full < fills:
        assert rounds < 4 * fills, "the rounds hardly ever filled the device"
        work.one(rounds)
        rounds += 1
    work.check_all(server)
    print(f"seed {seed}: {work.full} of {rounds} backups found the device full; {time.monotonic() - began:.0f} s")
    return work


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_device_that_fills_keeps_all_it_had_and_goes_on_with_room(mount, process_mesh, tmp_path, kind):
    disk = mount(kind, tmp_path / "small", size=80 * MEBIBYTE)
    fill_rounds(process_mesh(1), disk, 3, 2, "alpha")


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_device_of_another_server_that_fills_twenty_times_keeps_all_it_had(mount, process_mesh, tmp_path, kind):
    disk = mount(kind, tmp_path / "small", size=400 * MEBIBYTE)
    fill_rounds(process_mesh(2), disk, 20, 20, "beta")
