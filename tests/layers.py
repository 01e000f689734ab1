"""The rooms of ``caso_mesh``, their floors, and who imports whom, read from the source.

``scripts/rooms`` prints the picture; ``test_layers.py`` holds the rules to it.
"""

from __future__ import annotations

import ast
import functools
import pathlib
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

PACKAGE = "caso_mesh"
SOURCE = pathlib.Path(__file__).parents[1] / PACKAGE

#: Floor of each room: a room imports only from lower floors, and from itself.
FLOORS: dict[str, int] = {
    "model": 0,
    "planning": 1,
    "database": 1,
    "sealing": 1,
    "wire": 1,
    "config": 1,
    "docs": 1,
    "reports": 1,
    "identity": 2,
    "consensus": 2,
    "journal": 2,
    "devices": 2,
    "sources": 2,
    "discovery": 2,
    "vault": 3,
    "catalog": 3,
    "control": 3,
    "jobs": 4,
    "server": 5,
    "admin": 5,
    "api": 6,
    "local": 6,
    "machine": 6,
    "console": 7,
    "metrics": 7,
    "seat": 7,
    "founding": 7,
    "daemon": 8,
    "demo": 8,
    "recovery": 8,
    "takeover": 8,
    "cli": 9,
    "__main__": 10,
}


class Import(NamedTuple):
    """``module`` imports ``target`` (dotted names), at ``line`` of its file."""

    module: str
    target: str
    line: int
    typing_only: bool


@dataclass(frozen=True, eq=False)
class Module:
    """A file of the package: dotted name, text, syntax tree. The tree, and what is read from it, is made when it is first
    asked for: whoever only collects tests pays for none of the six hundred."""

    name: str
    path: pathlib.Path
    text: str

    @functools.cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @functools.cached_property
    def imports(self) -> list[Import]:
        """All imports, also those inside of functions; ``from a import b`` counts as ``a.b``."""
        return _imports_of(self)

    def forget(self) -> None:
        """Lets go of all that was made of the text."""
        for made in ("tree", "imports"):
            vars(self).pop(made, None)


def modules(source: pathlib.Path = SOURCE) -> list[Module]:
    """Every Python file of the package."""
    found = []
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path, path.read_text("utf-8")))
    return found


def room_of(module: str) -> str | None:
    """The room a dotted name lies in; None for the package itself and for what is not of the package."""
    parts = module.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else None


def _imports_of(module: Module) -> list[Import]:
    found: list[Import] = []
    waiting: list[tuple[ast.AST, bool]] = [(module.tree, False)]
    while waiting:
        node, typing_only = waiting.pop()
        if isinstance(node, ast.If) and _asks_for_types(node.test):
            waiting += [(each, True) for each in node.body]
            waiting += [(each, typing_only) for each in node.orelse]
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = module.name.split(".")
                package = here if module.path.name == "__init__.py" else here[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            if not isinstance(node, ast.expr):  # nothing is imported inside of one
                waiting += [(each, typing_only) for each in ast.iter_child_nodes(node)]
            continue
        found += [Import(module.name, name, node.lineno, typing_only) for name in names]
    return sorted(found, key=lambda each: each.line)


def _asks_for_types(test: ast.expr) -> bool:
    """``TYPE_CHECKING`` or ``typing.TYPE_CHECKING``."""
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def room_graph(found: list[Module]) -> dict[str, dict[str, list[Import]]]:
    """Room -> room -> the imports between them, without those inside a room."""
    graph: dict[str, dict[str, list[Import]]] = defaultdict(lambda: defaultdict(list))
    for module in found:
        room = room_of(module.name)
        for each in module.imports:
            target = room_of(each.target)
            if room and target and target != room and target in FLOORS:
                graph[room][target].append(each)
    return graph


def lines_of(module: Module) -> tuple[int, int]:
    """``(lines, lines of code)``: the second without empty lines, comments and docstrings."""
    prose: set[int] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                prose.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines = module.text.splitlines()
    code = [
        n for n, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#") and n not in prose
    ]
    return len(lines), len(code)


def picture(found: list[Module]) -> str:
    """Floors, rooms with their sizes, and who really imports whom, as text."""
    graph = room_graph(found)
    sizes: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for module in found:
        lines, code = lines_of(module)
        size = sizes[room_of(module.name) or "(package)"]
        size[0] += 1
        size[1] += lines
        size[2] += code
        size[3] = max(size[3], lines)
    out = [f"{'floor':>5}  {'room':<10} {'files':>5} {'lines':>6} {'code':>6} {'longest':>7}   imports"]
    for floor in sorted(set(FLOORS.values()), reverse=True):
        rooms = [room for room, at in FLOORS.items() if at == floor and room in sizes]
        for number, room in enumerate(rooms):
            targets = sorted(graph.get(room, {}), key=lambda name: (-FLOORS[name], name))
            files, lines, code, longest = sizes[room]
            label = str(floor) if number == 0 else ""
            row = f"{label:>5}  {room:<10} {files:>5} {lines:>6} {code:>6} {longest:>7}   {' '.join(targets)}"
            out.append(row.rstrip())
    total = [sum(size[i] for size in sizes.values()) for i in range(3)]
    out.append(f"{'':>5}  {'all':<10} {total[0]:>5} {total[1]:>6} {total[2]:>6}")
    return "\n".join(out)


if __name__ == "__main__":
    sys.stdout.write(picture(modules()) + "\n")
