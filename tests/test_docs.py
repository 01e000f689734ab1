"""The manual is true: whatever exists is documented, and nothing tracked gives a machine away."""

from __future__ import annotations

import ast
import importlib
import itertools
import pathlib
import re
import subprocess

import msgspec
import pytest
from alert_source import raised

from caso_mesh import docs
from caso_mesh.cli import program
from caso_mesh.cli.grammar import Group
from caso_mesh.cli.table import COMMANDS
from caso_mesh.config import Config
from caso_mesh.docs import generate
from caso_mesh.model.alerts import BY_NAME as ALERTS
from caso_mesh.model.calls import CALLS
from caso_mesh.model.errors import LISTED_BY, UsageError, all_errors
from caso_mesh.model.facts import Fact
from caso_mesh.model.settings import SETTINGS
from caso_mesh.model.states import REASON_ENDS, REASON_TEXT, RunState, ServerState, WaitReason
from caso_mesh.vault import names

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "caso_mesh" / "docs"


def text_of(page: str) -> str:
    return docs.page(page)


def test_every_page_of_the_manual_is_listed_and_there():
    assert {path.stem for path in DOCS.glob("*.md")} == set(docs.PAGES)
    for name in docs.PAGES:
        assert re.match(r"(<!--.*-->\s*)?# \S", text_of(name)), f"{name} does not begin with a title"
    with pytest.raises(KeyError):
        docs.page("../__init__")


@pytest.mark.parametrize("page", sorted(generate.pages()))
def test_generated_pages_are_as_the_tables_say(page):
    assert text_of(page) == generate.pages()[page], "run scripts/make-docs"


def test_every_call_and_every_record_in_it_is_documented():
    text = text_of("calls")
    for call in CALLS:
        assert f"| `{call.name}` |" in text
        for record in (call.request, call.reply):
            section = text.split(f"### {record.__name__}\n", 1)[1].split("\n### ", 1)[0]
            for field in msgspec.structs.fields(record):
                assert f"| `{field.encode_name}` |" in section, f"{record.__name__}.{field.name}"


def test_a_record_says_something_of_its_own_or_nothing():
    """The manual had ninety times what the library of records says of all of them."""
    assert msgspec.Struct.__doc__ is not None
    assert " ".join(msgspec.Struct.__doc__.split())[:60] not in generate.pages()["calls"]


def test_every_category_of_alerts_that_is_raised_is_in_the_manual_and_the_other_way_round():
    """A new one belongs into ``model/alerts.py``, with what it means and what to do."""
    assert sorted(raised()) == sorted(ALERTS)


def test_every_reason_for_waiting_is_documented():
    for reason in WaitReason:
        assert f"| `{reason.value}` |" in text_of("calls")


def test_every_setting_is_documented_with_its_reason():
    for setting in SETTINGS:
        row = next(line for line in text_of("settings").splitlines() if line.startswith(f"| `{setting.name}` |"))
        assert setting.text in row


def test_every_error_is_documented():
    for code in all_errors():
        assert f"| `{code}` |" in text_of("errors")


def commands() -> list[str]:
    """Every command of the program as a person types it, without ``caso-mesh``."""
    found = []
    for _, name, place, _ in COMMANDS:
        module_name, _, attribute = place.partition(":")
        target = getattr(importlib.import_module(f"caso_mesh.cli.{module_name}"), attribute)
        found += below(name, target)
    return found


def below(words: str, target: object) -> list[str]:
    if not isinstance(target, Group):
        return [words]
    return [each for name, sub in target.commands.items() for each in below(f"{words} {name}", sub)]


def test_every_command_is_in_the_guide():
    text = text_of("guide")
    missing = [each for each in commands() if not re.search(rf"`(caso-mesh )?{re.escape(each)}\b", text)]
    shown = [each for each in missing if f"caso-mesh {each}" not in text]
    assert not shown, f"the guide does not show: {shown}"


@pytest.mark.parametrize("path", [ROOT / "README.md", DOCS / "guide.md"], ids=lambda path: path.name)
def test_no_page_shows_a_command_that_does_not_exist(path):
    known = [*commands(), "--help"]
    for shown in re.findall(r"(?m)(?:^    |^|\$\(|`)caso-mesh ([a-z][a-z \-]*[a-z])", path.read_text("utf-8")):
        if shown.startswith("backs up"):
            continue  # a sentence
        words = shown.split()
        assert any(" ".join(words).startswith(each) for each in known), f"caso-mesh {shown}"


def commands_in(text: str) -> list[list[str]]:
    """What ``caso-mesh`` is followed by in a sentence: a command, and what stands for its arguments."""
    found = []
    for shown in re.findall(r"caso-mesh ([a-z][^\"',;:()]*)", re.sub(r"\{\w+\}", "NAME", text)):
        words = re.split(r"\.( |$)", shown)[0].split()
        name = next((each for each in KNOWN if words[: len(each)] == each), None)
        if name is None:
            found.append(words)
            continue
        rest = itertools.takewhile(lambda word: re.match(r"[A-Z]|--[a-z]", word), words[len(name) :])
        found.append([*name, *rest])
    return found


KNOWN = sorted((each.split() for each in commands()), key=len, reverse=True)
#: What follows the program's name where that is the subject of a sentence.
NO_COMMANDS = ("on this server", "server in", "speaks TLS")


def test_no_hint_names_a_command_or_an_argument_that_is_refused():
    """What would end a wait named three that were."""
    texts = [*REASON_TEXT.values(), *REASON_ENDS.values(), *(each.do for each in ALERTS.values())]
    texts += [f"{error.template()} {error.hint_template()}" for error in all_errors().values()]
    texts += [f"caso-mesh {command}" for command in LISTED_BY.values()]
    for words in {tuple(words) for text in texts for words in commands_in(text)}:
        if " ".join(words).startswith(NO_COMMANDS):
            continue
        try:
            program.parse(list(words))
        except UsageError as error:
            assert " needs " in error.message, f"caso-mesh {' '.join(words)}: {error.message}"


def test_every_key_of_the_configuration_file_is_in_the_guide():
    def keys(record: type[msgspec.Struct]) -> list[str]:
        found = []
        for field in msgspec.structs.fields(record):
            found.append(field.name)
            if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
                found += keys(field.type)
        return found

    for key in keys(Config):
        assert f"`{key}`" in text_of("guide") or f"[{key}]" in text_of("guide"), key


def test_every_state_of_servers_and_runs_is_explained_in_the_guide():
    for state in [*ServerState, *RunState]:
        assert f"`{state.value}`" in text_of("guide"), state.value


def test_every_kind_of_message_is_in_the_page_of_the_wire():
    """The kinds are the first items of the arrays that the protocol takes apart."""
    text = text_of("wire")
    tree = ast.parse((ROOT / "caso_mesh" / "wire" / "protocol.py").read_text("utf-8"))
    shapes = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.MatchSequence) and node.patterns:
            first = node.patterns[0]
            if isinstance(first, ast.MatchValue) and isinstance(first.value, ast.Constant):
                shapes.add((first.value.value, len(node.patterns)))
    assert len(shapes) >= 6, "the protocol is written in another way now: look for its kinds there"
    # Messages are [kind, ...]; what follows [3, id, ...] is taken apart in a second step.
    documented = {
        (int(kind), inner and int(inner)) for kind, inner in re.findall(r"`\[(\d)(?:, id, (\d))?[^`]*\]`", text)
    }
    for kind, _ in shapes:
        assert any(kind in pair for pair in documented), f"kind {kind}"
    assert {kind for kind, _ in documented} == set(range(7))
    assert {inner for kind, inner in documented if kind == 3} >= set(range(6))


def test_every_name_and_kind_of_object_is_in_the_page_of_the_format():
    text = text_of("format")
    made = [
        names.FORMAT,
        names.key_name("k"),
        names.writer_name("w"),
        names.session_name("w", "s"),
        names.closed_name("w", "s"),
        names.pack_name(b"\0" * 16, names.Kind.DATA_PACK),
        names.pack_name(b"\0" * 16, names.Kind.METADATA_PACK),
        names.index_name("w", 1, b"\0" * 16),
        names.set_name("w", "s", 1),
    ]
    for each in made:
        top = "/".join(each.split("/")[:2]) if each.startswith("packs") else each.split("/")[0]
        assert re.search(rf"(?m)^{re.escape(top)}(/| )", text), each
    for kind in names.Kind:
        assert f"{kind.value} {kind.name.lower().replace('_', ' ')}" in text, kind
        assert f"`{kind.domain}`" in text, kind
    assert f"`{names.MAGIC.decode()}`" in text
    assert f"version {names.FORMAT_VERSION} " in text


def test_every_fact_says_what_it_is():
    for fact in Fact.__args__:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", fact.__struct_config__.tag)


def tracked() -> list[pathlib.Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("not a clone of the repository")
    return [ROOT / name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_nothing_tracked_names_a_place_of_the_machine_it_was_written_on():
    # Put together here, so that this file does not find itself.
    wrong = re.compile(
        "|".join(
            [
                "/" + "work/",
                r"\.\./" + "shared",
                "/" + "opt/",
                "extra-index" + "-url",
                "find" + "-links",
                "index" + "-url",
            ]
        )
    )
    found = []
    for path in tracked():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}:{n}" for n, line in enumerate(text.splitlines(), 1) if wrong.search(line)]
    assert not found, "\n".join(found)


def test_nothing_tracked_is_a_private_key():
    marker = b"PRIVATE" + b" KEY-----"
    wrong = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if b"-----BEGIN" in (data := path.read_bytes()) and marker in data
    ]
    assert not wrong


def test_the_top_level_holds_nothing_else():
    allowed = {"pyproject.toml", "README.md", "LICENSE", "caso_mesh", "tests", "scripts", "certs"}
    tops = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert {top for top in tops if not top.startswith(".")} <= allowed


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", ROOT / "caso_mesh" / "ARCHITECTURE.md", *sorted(DOCS.glob("*.md"))],
    ids=lambda p: p.name,
)
def test_links_of_the_pages_lead_somewhere(path):
    text = path.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), target
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"(?m)^#+ (.*)$", text)}
    for anchor in re.findall(r"\]\(#([^)]*)\)", text):
        assert anchor in anchors, f"#{anchor}"
