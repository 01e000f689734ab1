"""``caso-mesh help``: the manual that ships with the program, and the help of each command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from caso_mesh import docs
from caso_mesh.cli import output
from caso_mesh.cli.grammar import Parameter
from caso_mesh.model.errors import UsageError


def help_(
    *topic: Annotated[str, Parameter(name="TOPIC", help="A page of the manual, or a command, as in: job list.")],
) -> None:
    """Show a page of the manual or the help of a command; without a topic, what there is."""
    pages = _pages()
    if not topic:
        from caso_mesh.cli.explaining import make_app

        make_app().help_print([])
        output.line("Pages of the manual (caso-mesh help PAGE):")
        output.line("  " + ", ".join(sorted(pages)))
        return
    page = pages.get(topic[0]) if len(topic) == 1 else None
    if page is None:
        _command(topic)
    else:
        _show(page.read_text("utf-8"))


def _pages() -> dict[str, Path]:
    return {path.stem: path for folder in docs.__path__ for path in Path(folder).glob("*.md")}


def _command(words: tuple[str, ...]) -> None:
    from cyclopts import App

    from caso_mesh.cli.explaining import make_app

    app: App = make_app()
    for word in words:
        if word not in app:
            raise UsageError(detail=f'There is no page and no command "{" ".join(words)}"; see: caso-mesh help')
        app = app[word]
    make_app().help_print([*words])


def _show(text: str) -> None:
    if output.is_terminal(sys.stdout):
        from rich.markdown import Markdown

        output.console(sys.stdout).print(Markdown(text))
    else:
        sys.stdout.write(text)
