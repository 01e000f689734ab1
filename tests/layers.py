"""The rooms of ``caso_mesh``, their floors, and who imports whom, read from the source.

``scripts/rooms`` prints the picture; ``test_layers.py`` holds the rules to it.
"""

from __future__ import annotations

import ast
import pathlib
import sys
from collections import defaultdict
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


class Module(NamedTuple):
    """A file of the package: dotted name, text, syntax tree."""

    name: str
    path: pathlib.Path
    text: str
    tree: ast.Module


def modules(source: pathlib.Path = SOURCE) -> list[Module]:
    """Every Python file of the package."""
    found = []
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text("utf-8")
        found.append(Module(name, path, text, ast.parse(text, str(path))))
    return found


def room_of(module: str) -> str | None:
    """The room a dotted name lies in; None for the package itself and for what is not of the package."""
    parts = module.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else None


def imports_of(module: Module) -> list[Import]:
    """All imports of a module, also those inside of functions; ``from a import b`` counts as ``a.b``."""
    typing_only = {
        id(node)
        for guard in ast.walk(module.tree)
        if isinstance(guard, ast.If) and ast.unparse(guard.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
        for body in guard.body
        for node in ast.walk(body)
    }
    found = []
    for node in ast.walk(module.tree):
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
            continue
        found += [Import(module.name, name, node.lineno, id(node) in typing_only) for name in names]
    return found


def room_graph(found: list[Module]) -> dict[str, dict[str, list[Import]]]:
    """Room -> room -> the imports between them, without those inside a room."""
    graph: dict[str, dict[str, list[Import]]] = defaultdict(lambda: defaultdict(list))
    for module in found:
        room = room_of(module.name)
        for each in imports_of(module):
            target = room_of(each.target)
            if room and target and target != room and target in FLOORS:
                graph[room][target].append(each)
    return graph


def lines_of(text: str) -> tuple[int, int]:
    """``(lines, lines of code)``: the second without empty lines, comments and docstrings."""
    tree = ast.parse(text)
    prose: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                prose.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines = text.splitlines()
    code = [
        n for n, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#") and n not in prose
    ]
    return len(lines), len(code)


def picture(source: pathlib.Path = SOURCE) -> str:
    """Floors, rooms with their sizes, and who really imports whom, as text."""
    found = modules(source)
    graph = room_graph(found)
    sizes: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for module in found:
        lines, code = lines_of(module.text)
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
    sys.stdout.write(picture() + "\n")
