"""The error tree: every error has a code that is its own, says something, and survives the wire."""

from __future__ import annotations

import ast
import inspect
import pathlib
import pickle
import re

import pytest

from caso_mesh.model import errors
from caso_mesh.model.errors import CasoError, Misuse, NotFound, UnknownError, all_errors, from_wire

ALL = list(all_errors().values())
by_code = pytest.mark.parametrize("error", ALL, ids=lambda error: error.code)


def filled(error: type[CasoError]) -> CasoError:
    return error(**{name: f"<{name}>" for name in error.field_names()})


def test_codes_are_unique():
    classes = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, CasoError)]
    codes = [each.code for each in classes]
    assert sorted(codes) == sorted(set(codes)), "two classes share a code"
    assert set(codes) == set(all_errors())


def test_errors_are_made_nowhere_else():
    """A subclass in another room would have no page and could not be read by the other side."""
    found = []
    for path in pathlib.Path(errors.__file__).parents[1].rglob("*.py"):
        if path.name == "errors.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                if bases & {each.__name__ for each in ALL}:
                    found.append(f"{path.name}:{node.lineno} {node.name}")
    assert not found


@by_code
def test_an_error_has_its_own_code_message_and_exit_status(error):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", error.code)
    assert error.__doc__
    assert "code" in vars(error), f"{error.__name__} has the code of its parent"
    assert 1 <= error.exit_status <= 6
    # what is said of a catalog elsewhere is said in the words of the field, in a search beside what was found
    assert error.template().endswith(".") or error.code == "catalog-away", error.template()
    assert "\n" not in error.template()
    if error.hint_template():
        assert error.hint_template().endswith("."), error.hint_template()


@by_code
def test_an_error_fills_its_fields_in_and_leaves_no_braces(error):
    made = filled(error)
    assert "{" not in made.message + made.hint
    for name in error.field_names():
        assert f"<{name}>" in made.message + made.hint
    assert str(made) == made.message


@by_code
def test_an_error_crosses_the_wire_and_a_pipe(error):
    made = filled(error)
    for copy in (from_wire(made.to_wire()), pickle.loads(pickle.dumps(made))):
        assert type(copy) is type(made)
        assert copy.fields == made.fields
        assert (copy.message, copy.hint) == (made.message, made.hint)


def test_a_code_of_a_newer_version_is_kept():
    error = from_wire({"code": "from-the-future", "fields": {"b": 2, "a": "x"}})
    assert isinstance(error, UnknownError)
    assert error.fields["peer_code"] == "from-the-future"
    assert "a=x, b=2" in error.message


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"code": 7},
        {"code": "not-found"},
        {"code": "not-found", "fields": ["kind"]},
        {"code": "not-found", "fields": None},
    ],
)
def test_a_damaged_error_of_a_peer_is_still_an_error(record):
    error = from_wire(record)
    assert isinstance(error, CasoError)
    assert error.message


def test_a_missing_field_is_our_own_mistake():
    with pytest.raises(Misuse, match="name"):
        NotFound(kind="device")


def test_fields_become_what_the_wire_can_carry():
    error = NotFound(kind=b"\xff", name=pathlib.Path("/a"), more=(1, {2}), none=None)
    assert error.fields == {"kind": "\\xff", "name": "/a", "more": [1, [2]], "none": None}


def test_braces_in_a_value_are_not_filled_in_again():
    assert NotFound(kind="set", name="{kind}").message == 'There is no set "{kind}".'


def test_lists_read_as_text():
    error = errors.Ambiguous(kind="set", name="a", candidates=["ab", "ac"])
    assert "ab, ac" in error.message
