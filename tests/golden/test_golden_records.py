"""What programs of earlier feature levels say is taken, and what this one says is taken by them: ``records-N.json`` holds
the records of each (``wire_records``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import wire_records

from caso_mesh.model.dialects import OLDEST
from caso_mesh.model.features import FEATURE_LEVEL

FOLDER = Path(__file__).parent
LEVELS = sorted(int(path.stem.removeprefix("records-")) for path in FOLDER.glob("records-*.json"))
#: Records of the bulk dialogue whose shape was another in a version that is not spoken any more: who speaks it is refused
#: by the version.
OF_DIALECT_1 = {"Record", "far_restore.Begin", "Put"}


def _parts(field: str) -> set[str]:
    return set(field.removeprefix("!").split(" | "))


def _differ(name: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    found = [] if old.get("tag") == new.get("tag") else [f"{name} has another tag"]
    for field, kind in old["fields"].items():
        if field not in new["fields"]:
            found += [f"{name}.{field} has to be there for those of before"] * kind.startswith("!")
        elif not _parts(kind) <= _parts(new["fields"][field]):
            found.append(f"{name}.{field} was {kind}")
    added = new["fields"].keys() - old["fields"].keys()
    return found + [
        f"{name}.{field} is not said by those of before" for field in added if new["fields"][field][0] == "!"
    ]


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Why a program with the records ``before`` and one with those of ``now`` would not understand each other."""
    found = []
    for name, old in before["records"].items():
        new = now["records"].get(name)
        if new is not None:  # else nothing of that name crosses any more, or it moved: the calls below tell
            found += _differ(name, old, new)
    for call, records in before["calls"].items():
        if call not in now["calls"]:
            found.append(f"{call} is not answered any more")
            continue
        for old_name, new_name in zip(records, now["calls"][call], strict=True):
            if old_name != new_name:
                found += _differ(call, before["records"][old_name], now["records"][new_name])
    for name, values in before["values"].items():
        if name in now["values"] and not set(values) <= set(now["values"][name]):
            found.append(f"{name} lacks {set(values) - set(now['values'][name])}")
    return found + [f"the fact {kind} is not known any more" for kind in set(before["facts"]) - set(now["facts"])]


@pytest.mark.parametrize("level", LEVELS)
def test_every_record_of_before_is_understood_and_what_was_added_may_be_missed(level: int) -> None:
    before = json.loads((FOLDER / f"records-{level}.json").read_text("utf-8"))
    found = differences(before, wire_records.collected())
    if level == 1 and OLDEST > 1:
        found = [each for each in found if each.partition(" ")[0].rpartition(".")[0] not in OF_DIALECT_1]
    assert found == []


def test_a_level_leaves_its_records_before_the_next_but_one_comes() -> None:
    """While a level is being made its records may change; whoever makes the next one keeps them."""
    assert LEVELS[-1] >= FEATURE_LEVEL - 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda r: r["Ticket"]["fields"].pop("nonce"), "Ticket.nonce has to be there for those of before"),
        (lambda r: r["Ticket"]["fields"].update(mood="!str"), "Ticket.mood is not said by those of before"),
        (lambda r: r["Ticket"]["fields"].update(attempt="!int"), "Ticket.attempt was !str"),
        (lambda r: r["BackupSpec"].update(tag="kind=save"), "BackupSpec has another tag"),
    ],
)
def test_a_change_that_others_would_not_understand_is_seen(change: Any, told: str) -> None:
    now = wire_records.collected()
    before = json.loads(json.dumps(now))
    change(now["records"])
    assert differences(before, now) == [told]
