"""Write docs/reference/errors.md: every message that mlpack raises, found in the code itself.

``make docs`` runs it; a test fails when the file is not what it writes.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "mlpack"
OUTSIDE = ("runtime", "__init__.py", "__main__.py")
"""The runtime's errors are answers over HTTP, which docs/reference/scoring.md has."""

HEAD = """# Errors by message

Written by `make docs` from the code; do not edit. Parts of a message that depend on the case are in
*italics*. Exit status 1 is a refusal or a failure, 2 wrong usage, 3 a refusal by budget or policy.

"""


@dataclass(frozen=True, slots=True)
class Kind:
    """An error class: its bases, its own hint and its exit status if it sets one."""

    bases: tuple[str, ...]
    hint: str = ""
    status: int | None = None


@dataclass(frozen=True, slots=True, order=True)
class Message:
    """A message as it is raised."""

    text: str
    hint: str
    status: int
    where: str


def _order(message: Message) -> tuple[str, ...]:
    return message.where, message.text.lstrip("*").lower(), message.text, message.hint


def page() -> str:
    """Return the whole page."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in _modules()}
    kinds = {name: kind for tree in trees.values() for name, kind in _kinds(tree)}
    found = {each for path, tree in trees.items() for each in _messages(path, tree, kinds)}
    rooms: dict[str, list[Message]] = {}
    for message in sorted(found, key=_order):
        rooms.setdefault(message.where, []).append(message)
    return HEAD + "\n".join(_section(room, rooms[room]) for room in sorted(rooms))


def _modules() -> Iterator[Path]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] not in OUTSIDE:
            yield path


def _section(room: str, messages: list[Message]) -> str:
    rows = "".join(f"| {each.text} | {each.status} | {each.hint} |\n" for each in messages)
    return f"## {room}\n\n| message | status | what to do |\n|---|---|---|\n{rows}"


def _kinds(tree: ast.Module) -> Iterator[tuple[str, Kind]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            hint, status = "", None
            for line in node.body:
                name = _assigned(line)
                if name == "hint":
                    hint = _text(line.value)  # type: ignore[attr-defined]
                elif name == "exit_status" and isinstance(line.value, ast.Constant):  # type: ignore[attr-defined]
                    status = int(line.value.value)  # type: ignore[attr-defined]
            yield node.name, Kind(tuple(ast.unparse(base) for base in node.bases), hint, status)


def _assigned(line: ast.stmt) -> str:
    if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
        return line.targets[0].id
    if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value:
        return line.target.id
    return ""


def _messages(path: Path, tree: ast.Module, kinds: Mapping[str, Kind]) -> Iterator[Message]:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
            continue
        if not _is_error(node.func.id, kinds):
            continue
        text = _text(node.args[0])
        if text.strip("*… ") == "":
            continue
        given = next((_text(each.value) for each in node.keywords if each.arg == "hint"), "")
        hint = given or str(_inherited(node.func.id, kinds, "hint") or "")
        status = _inherited(node.func.id, kinds, "status")
        yield Message(text, hint, int(status) if status is not None else 1, room)


def _is_error(name: str, kinds: Mapping[str, Kind]) -> bool:
    seen = [name]
    while seen:
        here = seen.pop()
        if here == "MlpackError":
            return True
        seen += kinds[here].bases if here in kinds else ()
    return False


def _inherited(name: str, kinds: Mapping[str, Kind], what: str) -> object:
    if name not in kinds:
        return None
    found = getattr(kinds[name], what)
    if found not in ("", None):
        return found
    for base in kinds[name].bases:
        above = _inherited(base, kinds, what)
        if above not in ("", None):
            return above
    return None


def _text(node: ast.expr | None) -> str:
    """Return the text of an expression; what is not constant is a name in italics."""
    if isinstance(node, ast.Constant):
        return _plain(str(node.value))
    if isinstance(node, ast.JoinedStr):
        return "".join(
            _plain(str(part.value)) if isinstance(part, ast.Constant) else _italic(part)
            for part in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return "*…*"


def _italic(part: ast.expr) -> str:
    value = part.value if isinstance(part, ast.FormattedValue) else part
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "page" and value.args:
        name = ast.literal_eval(value.args[0])
        return f"[{name}](../{name}.md)"
    while isinstance(value, ast.Call) and value.args:
        value = value.args[0]
    if isinstance(value, ast.Attribute):
        return f"*{value.attr.strip('_')}*"
    return f"*{value.id.strip('_')}*" if isinstance(value, ast.Name) else "*…*"


def _plain(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*")
    return escaped.replace("<", "&lt;").replace("[", "\\[").replace("_", "\\_").replace("\n", " ")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
