"""Which alerts the code raises: read from the source, since not every alert can be provoked in a test."""

from __future__ import annotations

import ast
import functools
import re

from layers import Module, modules

from caso_mesh.model.errors import all_errors
from caso_mesh.model.states import AlertKind

#: Where the type and the category are among the arguments of what raises an alert.
RAISES = {"alert": 0, "begins": 0, "attempt_begins": 0, "once": 1, "attempt": 1, "AlertRaised": 1}
#: Files that raise an alert of whichever of these errors it is.
DYNAMIC = {"caso_mesh.server.room": ("state-full", "journal-full")}
#: What raises a warning of the category that comes first.
WARNS = {"_warn", "_lost"}
#: Files that pass on what others raise.
PASS_ON = {"caso_mesh.admin.alarms", "caso_mesh.server.facts", "caso_mesh.admin.standby", "caso_mesh.admin.ports"}
#: What a file says that calls one of those, so that no other is parsed.
CALLED = re.compile(rf"\b({'|'.join(sorted({*RAISES, *WARNS}))})\(")
CODES = {cls.__name__: code for code, cls in all_errors().items()}


@functools.cache
def raised() -> dict[str, set[AlertKind]]:
    """Category -> types, as the source has them."""
    found: dict[str, set[AlertKind]] = {}
    house = {module.name: module for module in modules()}
    for module in house.values():
        if module.name in PASS_ON or not CALLED.search(module.text):
            continue
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in WARNS and len(node.args) == 2:
                for category in values(house, module, node.args[0]):
                    found.setdefault(category, set()).add(AlertKind.WARNING)
                continue
            at = RAISES.get(name)
            if at is None or len(node.args) < at + 3:
                continue
            pairs = together(house, module, node.args[at], node.args[at + 1])
            if not all(kind in AlertKind.__members__ for kind, _ in pairs):
                continue
            if not pairs and module.name in DYNAMIC:
                pairs = [(kind, each) for kind in values(house, module, node.args[at]) for each in DYNAMIC[module.name]]
            if not pairs and ast.unparse(node.args[at + 1]) == "category":
                continue  # of one of ``WARNS``
            assert pairs, f"{module.name}:{node.lineno}: no category can be read here: use a constant"
            for kind, category in pairs:
                found.setdefault(category, set()).add(AlertKind[kind])
    return found


def together(house: dict[str, Module], module: Module, kind: ast.expr, category: ast.expr) -> list[tuple[str, str]]:
    """Types and categories; those of two names that are set in one line belong together."""
    if isinstance(kind, ast.Name) and isinstance(category, ast.Name):
        return [
            (one, other)
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Tuple)
            and isinstance(node.targets[0], ast.Tuple)
            for names in [[getattr(each, "id", "") for each in node.targets[0].elts]]
            if kind.id in names and category.id in names
            for one in values(house, module, node.value.elts[names.index(kind.id)])
            for other in values(house, module, node.value.elts[names.index(category.id)])
        ]
    return [(one, other) for one in values(house, module, kind) for other in values(house, module, category)]


def values(house: dict[str, Module], module: Module, node: ast.expr) -> list[str]:
    """What an argument may be: constants, names of them, members of ``AlertKind``, codes of errors."""
    match node:
        case ast.Constant(value=str() as text):
            return [text]
        case ast.Attribute(value=ast.Name(id="AlertKind"), attr=kind):
            return [kind]
        case ast.Attribute(value=ast.Name(id=name), attr="code"):
            made = [
                each.func.id
                for each in assigned(module, name)
                if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)
            ]
            return [CODES[each] for each in made if each in CODES]
        case ast.IfExp(body=body, orelse=other):
            return [*values(house, module, body), *values(house, module, other)]
        case ast.Name(id=name):
            found = [text for each in assigned(module, name) for text in values(house, module, each)]
            return found or [text for other in origin(house, module, name) for text in values(house, other, node)]
        case _:
            return []


def origin(house: dict[str, Module], module: Module, name: str) -> list[Module]:
    """The file that a name is imported from."""
    froms = {
        node.module
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names)
    }
    return [house[each] for each in froms if each in house]


def assigned(module: Module, name: str) -> list[ast.expr]:
    """All that a name is set to anywhere in a file."""
    found = []
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            if isinstance(target, ast.Name) and target.id == name:
                found.append(node.value)
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = zip(target.elts, node.value.elts, strict=True)
                found += [value for each, value in pairs if isinstance(each, ast.Name) and each.id == name]
    return found
