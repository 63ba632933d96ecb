"""``mlpack docs``: the documentation, which the distribution carries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from mlpack.errors import MlpackError, UsageError
from mlpack.humanize import nearest

PACKAGE = "mlpack_docs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page in Markdown; ``name`` is its path below ``docs/`` without the suffix."""

    name: str
    title: str
    text: str

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json docs PAGE``."""
        return {"page": self.name, "title": self.title, "text": self.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """All pages, by name."""

    pages: tuple[Page, ...]

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json docs``."""
        return {"pages": [{"page": each.name, "title": each.title} for each in self.pages]}


def pages() -> Pages:
    """Return all pages, sorted by name; raise if they are not installed."""
    try:
        folder = files(PACKAGE)
    except ModuleNotFoundError as error:
        raise MlpackError(
            "this installation of mlpack has no documentation", hint="install mlpack again"
        ) from error
    found = (_read(name, file) for name, file in _walk(folder, ""))
    return Pages(pages=tuple(sorted(found, key=lambda each: each.name)))


def read_page(name: str) -> Page:
    """Return the page ``name``, or the only one whose last part it is.

    Raises :class:`~mlpack.errors.UsageError`.
    """
    asked = name.removesuffix(".md").strip("/")
    found = pages().pages
    chosen = [each for each in found if each.name == asked]
    chosen = chosen or [each for each in found if each.name.rpartition("/")[2] == asked]
    if len(chosen) != 1:
        names = [each.name for each in found]
        short = [each.rpartition("/")[2] for each in names]
        raise UsageError(
            f"there is no page {name!r}{nearest(asked, [*names, *short])}",
            hint="all pages: mlpack docs",
        )
    return chosen[0]


def _walk(folder: Traversable, above: str) -> Iterator[tuple[str, Traversable]]:
    for each in folder.iterdir():
        if each.is_dir():
            yield from _walk(each, f"{above}{each.name}/")
        elif each.name.endswith(".md"):
            yield f"{above}{each.name.removesuffix('.md')}", each


def _read(name: str, file: Traversable) -> Page:
    text = file.read_text(encoding="utf-8")
    first = next((line for line in text.splitlines() if line.startswith("# ")), f"# {name}")
    return Page(name=name, title=first[2:].strip(), text=text)
