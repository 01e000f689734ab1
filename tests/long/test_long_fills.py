"""A device is full at random moments: the backup says so and leaves nothing, earlier sets are whole, and with room again
the next backup succeeds."""

from __future__ import annotations

import pytest
from long.fill_rounds import Fills
from mesh.mounts import MEBIBYTE


def fill_rounds(mesh, disk, seed: int, rounds: int, server: str) -> Fills:
    fills = Fills(mesh, disk, seed)
    print(f"seed {seed}")
    fills.prepare(server)
    for number in range(rounds):
        fills.one(number)
    fills.check_all(server)
    assert fills.full >= rounds // 3, "the rounds hardly ever filled the device"
    print(f"seed {seed}: {fills.full} of {rounds} backups found the device full")
    return fills


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_device_that_fills_keeps_all_it_had_and_goes_on_with_room(mount, process_mesh, tmp_path, kind):
    disk = mount(kind, tmp_path / "small", size=80 * MEBIBYTE)
    fill_rounds(process_mesh(1), disk, 3, 3, "alpha")


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_device_of_another_server_that_fills_forty_times_keeps_all_it_had(mount, process_mesh, tmp_path, kind):
    disk = mount(kind, tmp_path / "small", size=400 * MEBIBYTE)
    fill_rounds(process_mesh(2), disk, 40, 40, "beta")
