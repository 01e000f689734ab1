"""The house stands: imports run downhill, pure rooms are pure, and no room breaks what it must never do.

``scripts/rooms`` prints the picture of what these tests see.
"""

from __future__ import annotations

import ast
import collections
from collections.abc import Iterator

import pytest
from layers import FLOORS, PACKAGE, SOURCE, Import, Module, modules, picture, room_graph, room_of

MODULES = modules()

#: Rooms that compute and nothing else, and what they therefore never import.
PURE_ROOMS = ("model", "planning", "control", "reports")
IMPURE = {"asyncio", "os", "time", "socket", "random", "secrets", "subprocess", "threading", "select", "ssl", "uuid"}
#: The keeper feeds committed commands to the pure reducer and lets others wait for them.
MAY_WAIT = {f"{PACKAGE}.control.keeper": {"asyncio"}}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base", "core"}
#: A longer file wants a reason; here are those that have one.
LONG_FILES = {
    f"{PACKAGE}.model.errors": "the error tree is one list of one-paragraph classes",
    f"{PACKAGE}.model.calls": "the table of calls is one table, of a row for each",
    f"{PACKAGE}.model.commands": "one short record for each command of the log, and the union of all",
    f"{PACKAGE}.consensus.driver": "one member's share: what goes between core, disk and peers, in its order",
}
LONGEST = 500


@pytest.fixture(scope="module", autouse=True)
def trees_are_let_go() -> Iterator[None]:
    yield
    for module in MODULES:
        module.forget()


def where(found: Import) -> str:
    return f"{found.module}:{found.line} imports {found.target}"


def test_every_room_has_a_floor():
    rooms = {room_of(module.name) for module in MODULES} - {None}
    assert rooms <= FLOORS.keys(), f"give a floor to {sorted(rooms - FLOORS.keys())} in tests/layers.py"


def test_imports_run_downhill_only():
    wrong = [
        where(found)
        for room, targets in room_graph(MODULES).items()
        for target, each in targets.items()
        for found in each
        if FLOORS[target] >= FLOORS[room]
    ]
    assert not wrong, "upward or sideways:\n" + "\n".join(wrong)


def test_modules_import_each_other_in_no_circle():
    names = {module.name for module in MODULES}
    graph: dict[str, set[str]] = collections.defaultdict(set)
    for module in MODULES:
        for found in module.imports:
            # ``from a.b import c`` is written a.b.c here: the module is the longest known beginning.
            target = found.target
            while target and target not in names:
                target = target.rpartition(".")[0]
            # A package's own __init__ runs before its modules anyway; what counts is who needs whom.
            if target and target != module.name and target != PACKAGE and not found.typing_only:
                graph[module.name].add(target)
    state: dict[str, int] = {}

    def visit(name: str, trail: list[str]) -> list[str] | None:
        state[name] = 1
        for target in sorted(graph[name]):
            if state.get(target) == 1:
                return [*trail[trail.index(target) :], target] if target in trail else [name, target]
            if target not in state:
                circle = visit(target, [*trail, target])
                if circle:
                    return circle
        state[name] = 2
        return None

    for name in sorted(graph):
        if name not in state:
            assert (circle := visit(name, [name])) is None, " -> ".join(circle or [])


@pytest.mark.parametrize("room", PURE_ROOMS)
def test_pure_rooms_touch_no_clock_no_disk_no_network_and_no_chance(room):
    wrong = [
        where(found)
        for module in MODULES
        if room_of(module.name) == room
        for found in module.imports
        if (top := found.target.split(".")[0]) in IMPURE and top not in MAY_WAIT.get(module.name, set())
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", PURE_ROOMS)
def test_pure_rooms_do_not_ask_what_day_it_is(room):
    wrong = [
        f"{module.name}:{node.lineno} calls {ast.unparse(node.func)}"
        for module in MODULES
        if room_of(module.name) == room
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"now", "utcnow", "today"}
        and ast.unparse(node.func.value) in {"datetime", "datetime.datetime", "datetime.date", "date"}
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_database_room_opens_databases():
    wrong = []
    for module in MODULES:
        if room_of(module.name) == "database":
            continue
        wrong += [where(found) for found in module.imports if found.target.split(".")[0] == "aiosqlite"]
        wrong += [where(found) for found in module.imports if found.target == "sqlite3.connect"]
        wrong += [
            f"{module.name}:{node.lineno} calls sqlite3.connect"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Attribute) and node.attr == "connect" and ast.unparse(node) == "sqlite3.connect"
        ]
    assert not wrong, "\n".join(wrong)


def test_no_module_has_a_name_that_says_nothing():
    wrong = [module.name for module in MODULES if FORBIDDEN_NAMES & set(module.name.split("."))]
    assert not wrong


def rooms() -> list[Module]:
    return [module for module in MODULES if module.path.name == "__init__.py" and module.path.parent != SOURCE]


@pytest.mark.parametrize("room", rooms(), ids=lambda module: module.name)
def test_every_room_says_what_lives_there_and_what_must_not(room):
    text = ast.get_docstring(room.tree)
    assert text and len(text) > 40, f"{room.path} has no paragraph"
    if room.name.count(".") == 1 and room.name != f"{PACKAGE}.docs":
        assert any(word in text for word in (" not ", "Nothing")), f"{room.path} does not say what must not live there"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_every_module_says_what_it_is_for(module):
    if module.text.strip():
        assert ast.get_docstring(module.tree), f"{module.path} has no docstring"


def test_files_stay_short_or_have_a_reason():
    long = {m.name: n for m in MODULES if (n := len(m.text.splitlines())) > LONGEST and m.name not in LONG_FILES}
    assert not long, f"over {LONGEST} lines without a reason in tests/test_layers.py: {long}"


def test_the_picture_shows_every_room_and_its_imports():
    text = picture(MODULES)
    for room in {room_of(module.name) for module in MODULES} - {None}:
        assert any(line.split()[:2].count(room) for line in text.splitlines()), room
    wire = next(line for line in text.splitlines() if " wire " in f"{line} ")
    assert "model" in wire.split()


def test_the_rules_catch_what_breaks_them(tmp_path):
    package = tmp_path / PACKAGE
    for room in ("model", "wire", "sealing"):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").write_text('"""x"""\n')
    (package / "model" / "a.py").write_text("from caso_mesh import wire\n")
    (package / "wire" / "b.py").write_text("def f():\n    from ..sealing import c\n    import caso_mesh.model.a\n")
    graph = room_graph(modules(package))
    assert set(graph["model"]) == {"wire"}
    assert set(graph["wire"]) == {"sealing", "model"}
    assert graph["wire"]["sealing"][0].line == 2
