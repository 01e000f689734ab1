"""Daemons and workers are killed at random moments: nothing published is damaged, nothing is published twice, every
attempt ends exactly once, and what is restored equals what was backed up."""

from __future__ import annotations

import os
import time

import pytest
from long.kill_rounds import Rounds
from mesh.process import ProcessMesh


def kill_rounds(mesh: ProcessMesh, seed: int, kills: int) -> None:
    """Until so many have hit work under way."""
    work = Rounds(mesh, seed)
    began = time.monotonic()
    print(f"seed {seed}")
    work.prepare()
    number = 0
    while work.hits() < kills:
        work.one(number)
        number += 1
    work.check_all()
    print(f"seed {seed}: {work.summary()}; {time.monotonic() - began:.0f} s")


def test_what_was_published_survives_eight_kills(process_mesh):
    kill_rounds(process_mesh(2), 8, 8)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_what_was_published_survives_two_hundred_kills(process_mesh):
    kill_rounds(process_mesh(2), int(os.environ.get("CASO_MESH_SEED", "200")), 200)
