"""``mlpack docs``."""

from __future__ import annotations

import sys

import click

from mlpack.cli import console


@console.command(
    "docs",
    examples="""
    mlpack docs
    mlpack docs start/your-model
    mlpack docs settings | less
    """,
)
@click.argument("page", default="", metavar="[PAGE]")
def docs(page: str) -> None:
    """Show a page of the documentation, or list the pages.

    PAGE is a name of the list, or its last part. On a terminal the page is formatted, elsewhere it
    is Markdown.
    """
    from mlpack.api.docs import pages, read_page

    if not page:
        found = pages()
        rows = [(each.name, each.title) for each in found.pages]
        console.answer(found, lambda: console.table(("page", "title"), rows))
        return
    shown = read_page(page)
    console.answer(shown, lambda: _formatted(shown.text) if sys.stdout.isatty() else shown.text)


def _formatted(text: str) -> str:
    from rich.console import Console
    from rich.markdown import Markdown

    terminal = Console()
    with terminal.capture() as written:
        terminal.print(Markdown(text))
    return written.get()
