from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cli_world import FakeDaemon, Shell, material


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CASO_MESH_STATE", "CASO_MESH_DEBUG", "NO_COLOR", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "state"
    material().write_state(folder)
    return folder


@pytest.fixture
async def daemon(state: Path) -> AsyncIterator[FakeDaemon]:
    fake = FakeDaemon(state, material())
    async with fake.listening():
        yield fake


@pytest.fixture
def shell(state: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(state, capsys)
