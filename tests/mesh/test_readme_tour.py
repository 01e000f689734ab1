"""The tour of the README works as it is written."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
from contextlib import ExitStack

import pytest
from ports import hold_port

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def ports():
    """Four that are nobody else's."""
    with ExitStack() as stack:
        yield [stack.enter_context(hold_port()).getsockname()[1] for _ in range(4)]


def test_the_tour_of_the_readme_works_as_it_is_written(tmp_path, ports):
    text = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```$", text)
    assert len(blocks) >= 5
    script = "\n".join(blocks)
    # Only where it runs is changed: ports that may be taken here, and where the program is installed.
    written = sorted(set(re.findall(r"127\.0\.0\.1:(\d+)", script)))
    # three servers, and a place where nobody listens
    for port, free in zip(written, ports, strict=True):
        script = script.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free}")
    script = script.replace("$PWD/.venv/bin", str(pathlib.Path(sys.executable).parent))
    keep = {"PATH", "LANG", "CASO_MESH_TEST_RUN"}
    env = {name: value for name, value in os.environ.items() if name in keep}
    # Should the script fail, its daemons end with it.
    whole = f"trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\nset -euo pipefail\n{script}"
    with subprocess.Popen(
        ["bash", "-c", whole],
        cwd=ROOT,
        env={**env, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=200)
        except subprocess.TimeoutExpired:
            process.terminate()
            output, _ = process.communicate(timeout=20)
            raise AssertionError(f"the tour did not end:\n{output}") from None
    assert process.returncode == 0, output
    assert "\nequal\n" in output, output
    assert output.count("succeeded") >= 3, output
