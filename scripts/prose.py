"""Find phrases of the table below in documentation, docstrings, comments and messages.

``make prose`` runs it. Each finding is one line: file, line, the phrase, what to write instead.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = ("*.md", "docs/**/*.md", "examples/**/*.md", "templates/**/*.md")
CODE = ("mlpack/**/*.py", "examples/**/*.py", "templates/**/*.py", "benchmarks/**/*.py")
GENERATED = {"docs/reference.md", "docs/reference/cli.md", "docs/rollout.md"}
"""Written from the code's own texts, where the same phrases are found."""

RULES = {
    r"anew": "again, new",
    r"in vain": "without success",
    r"(?<!there\x20)(?:is|are) no(?! longer| more| less| larger| smaller| better| worse| slower)": (
        "is not a, cannot"
    ),
    r"what (?:is|are|was) (?:not )?there": "existing files, the current content",
    r"(?:it|they|and) (?:is|are)? ?there already": "already exists",
    r"ha(?:s|ve) (?:it|them|none) then": "a direct statement",
    r"(?:is|are) (?:not )?said": "is configured, is reported",
    r"is told(?: once)? (?:bytes|how many|of|what|when)": "is called with",
    r"that (?:is|are) no success": "unsuccessful",
    r"carr(?:y|ies|ied|ying)(?: \w+){0,4} out": "apply, run",
    r"(?:take|takes|taken|taking|took) up": "adopt, use",
    r"stands? (?:in(?! the way)|on|at|by|with|alone|here|there|where|below|above|before)": "is",
    r"beside": "next to, compared with",
    r"mak(?:es?|ing) of": "creates from",
    r"where there (?:is|are) none": "if there is none",
    r"where (?:it|they|that|nothing|nobody) (?:is|are) (?:given|set|named|asked)": "if it is set",
    r"(?:is|are|was|were) asked for": "is requested",
    r"will do": "is enough",
    r"but for": "except",
    r"lacks but": "lacks only",
    r"lest": "so that … not",
    r"nought|naught": "nothing",
    r"thereof|therein|thereby|hereby|wherein|whereby": "a plain pronoun",
    r"go(?:es|ing)? on with": "continue with",
    r"may it be": "whether it may be",
}
"""Regular expressions of phrases, and what to write instead."""

NAMES = {
    "Choice",
    "Found",
    "Held",
    "Meant",
    "Order",
    "Refused",
    "Said",
    "Seen",
    "Standing",
    "Wanted",
    "Without",
}
"""Class names that say nothing; a noun of the field does."""

_PHRASES = {
    re.compile(rf"(?<![\w`./-])(?:{phrase})(?![\w`/-])".replace(" ", r"\s+"), re.IGNORECASE): better
    for phrase, better in RULES.items()
}

Text = tuple[int, str]
"""A text and the line it begins in."""


def page_texts(content: str) -> Iterator[Text]:
    """The paragraphs of a Markdown page, without its code."""
    fenced = re.compile(r"^( *)```.*?^ *```", re.MULTILINE | re.DOTALL)
    content = fenced.sub(lambda found: "\n" * found[0].count("\n"), content)
    content = re.sub(r"`[^`\n]*`", "``", content)
    line = 1
    for paragraph in re.split(r"(\n\s*\n)", content):
        yield line, paragraph
        line += paragraph.count("\n")


def code_texts(content: str) -> Iterator[Text]:
    """The strings of a module (docstrings, messages, help) and its comments."""
    nodes = list(ast.walk(ast.parse(content)))
    pieces = {id(part) for each in nodes if isinstance(each, ast.JoinedStr) for part in each.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            parts = (each.value if isinstance(each, ast.Constant) else "…" for each in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in pieces
        ):
            yield node.lineno, node.value
    tokens = tokenize.generate_tokens(io.StringIO(content).readline)
    comments = [(each.start[0], each.string) for each in tokens if each.type == tokenize.COMMENT]
    # Lines that follow one another are one text.
    for _, block in groupby(enumerate(comments), lambda each: each[1][0] - each[0]):
        lines = [comment for _, comment in block]
        yield lines[0][0], "\n".join(text.lstrip("# ") for _, text in lines)


def findings(path: Path) -> Iterator[str]:
    """One line for each phrase and name that is found in a file."""
    content = path.read_text(encoding="utf-8")
    place = path.relative_to(CHECKOUT)
    texts = code_texts(content) if path.suffix == ".py" else page_texts(content)
    for start, text in texts:
        for phrase, better in _PHRASES.items():
            for found in phrase.finditer(text):
                line = start + text.count("\n", 0, found.start())
                shown = " ".join(text[max(found.start() - 20, 0) : found.end() + 20].split())
                yield f"{place}:{line}: “…{shown}…” write: {better}"
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.ClassDef) and node.name.lstrip("_") in NAMES:
                yield f"{place}:{node.lineno}: class {node.name}; use a noun of the field"


def files() -> list[Path]:
    """What is checked."""
    found = {path for pattern in (*PAGES, *CODE) for path in CHECKOUT.glob(pattern)}
    return sorted(each for each in found if str(each.relative_to(CHECKOUT)) not in GENERATED)


def main() -> int:
    """Check the files named, or all."""
    chosen = [Path(name).resolve() for name in sys.argv[1:]] or files()
    found = sorted({line for path in chosen for line in findings(path)})
    sys.stdout.writelines(f"{line}\n" for line in found)
    if found:
        sys.stderr.write(f"{len(found)} phrases to replace\n")
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main())
