"""Runs the interaction scenarios of an independent project against this core.

    python -m tests.conformance.raft FOLDER

The scenarios are those of etcd-io/raft (Apache-2.0; its ``testdata``, and the tables of its ``quorum`` and
``confchange``), which are not part of this repository. Every ``*.txt`` below the folder is run. Messages, hard state,
what is ready, entries, logs and configurations are compared; lines of that project's own log are not. What this core
leaves out by design, joint configurations, asynchronous storage, forgetting a leader and lease reads, is set aside and
named.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from conformance import tables
from conformance.cluster import Cluster, SetAside
from conformance.scenario import Step, steps, words

_LOG_LINES = ("DEBUG ", "INFO ", "WARN ", "ERROR ", "FATAL ")


def run_file(path: pathlib.Path) -> str | None:
    """``None`` if all came out as it must, else where it differs first. Raises ``SetAside``."""
    runner = _Runner()
    ran = 0
    for step in steps(path.read_text()):
        got, expected = _compared(runner.run(step)), _compared(step.expected)
        ran += 1
        if got != expected:
            return f"line {step.line}: {' / '.join(step.commands)}\n" + _difference(expected, got)
    return None if ran else "there is no command in it"


class _Runner:
    def __init__(self) -> None:
        self._cluster = Cluster()
        self._changes = tables.Changes()

    def run(self, step: Step) -> list[str]:
        """What the lines of one step print; a line that is no command is the input of the one before."""
        printed: list[str] = []
        lines = list(step.commands)
        while lines:
            command = words(lines.pop(0))
            more = []
            while lines and not self._cluster.knows(lines[0].partition(" ")[0]):
                more.append(lines.pop(0))
            if "cfgj" in command.named or command.name in {"enter-joint", "leave-joint"}:
                raise SetAside("joint configurations")
            if command.name == "committed":
                printed += tables.committed(command)
            elif command.name == "vote":
                printed += tables.vote(command)
            elif command.name == "simple":
                printed += self._changes.simple([token for line in more for token in line.split()])
            else:
                printed += self._cluster.run(command, more)
        return printed or ["ok"]


def _compared(lines: list[str] | tuple[str, ...]) -> list[str]:
    kept = [line.rstrip() for line in lines if not line.lstrip().startswith(_LOG_LINES)]
    return kept if kept != ["ok"] else []


def _difference(expected: list[str], got: list[str]) -> str:
    at = next(
        (n for n, pair in enumerate(zip(expected, got, strict=False)) if pair[0] != pair[1]),
        min(len(expected), len(got)),
    )
    before = [f"      {line}" for line in expected[max(0, at - 3) : at]]
    return "\n".join(
        [
            *before,
            f"    - {expected[at] if at < len(expected) else '(end)'}",
            f"    + {got[at] if at < len(got) else '(end)'}",
        ]
    )


def main(arguments: list[str]) -> int:
    """0 if none failed and at least one ran."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance.raft", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folder", type=pathlib.Path)
    folder: pathlib.Path = parser.parse_args(arguments).folder
    passed = failed = 0
    for path in sorted(folder.rglob("*.txt")):
        name = path.relative_to(folder)
        try:
            problem = run_file(path)
        except SetAside as reason:
            print(f"aside   {name}: {reason}")
            continue
        except Exception as error:  # one broken scenario does not hide the others
            problem = f"{type(error).__name__}: {error}"
        if problem is None:
            passed += 1
            print(f"passed  {name}")
        else:
            failed += 1
            print(f"FAILED  {name}: {problem}")
    print(f"{passed} passed, {failed} failed")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
