"""The files in ``templates/``, wherever mlpack is installed (a wheel, or a checkout)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable

from mlpack.errors import UsageError

PACKAGE = "mlpack_templates"
_NOT_TEMPLATES = ("__init__.py", "__pycache__")


def read_template(path: str) -> str:
    """The text of ``templates/<path>``; raise :class:`UsageError` where there is none."""
    found = _find(path)
    if not found.is_file():
        raise UsageError(f"mlpack ships no template {path!r}")
    return found.read_text(encoding="utf-8")


def template_tree(name: str) -> Mapping[str, bytes]:
    """Every file of the folder ``templates/<name>`` by its path in there, sorted."""
    found = _find(name)
    if not found.is_dir():
        raise UsageError(f"mlpack ships no template folder {name!r}")
    return dict(sorted(_walk(found, "")))


def _find(path: str) -> Traversable:
    found: Traversable = files(PACKAGE)
    for part in path.split("/"):
        if part in ("", ".", ".."):
            raise UsageError(f"{path!r} is not a template")
        found = found / part
    return found


def _walk(folder: Traversable, above: str) -> Iterator[tuple[str, bytes]]:
    for each in folder.iterdir():
        if each.name in _NOT_TEMPLATES:
            continue
        if each.is_dir():
            yield from _walk(each, f"{above}{each.name}/")
        else:
            yield f"{above}{each.name}", each.read_bytes()
