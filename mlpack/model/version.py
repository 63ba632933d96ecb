"""A model version as a value: its files, its tensors, what it asks of a runtime."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import Literal, get_args

from mlpack.errors import UsageError
from mlpack.json_document import IF_SET, SORTED, document
from mlpack.kinds import PLACES
from mlpack.model.comparison import Comparison, number
from mlpack.oci.descriptor import Digest, InvalidContent, Node, canonical, check_path

_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
MAX_NAME = 63

BASE, NONE = "base", "none"
"""In image references: the project's base, and an empty device."""

RESERVED = frozenset({BASE, NONE, *PLACES})
"""Names that mean something else in an image reference."""


class InvalidName(UsageError):
    """A model name or version that could not be a directory and a tag."""

    hint = "use lower-case letters, digits and single . _ - between them, at most 63 characters"


def check_name(text: str) -> str:
    """Return ``text`` if it can be a model's name; else raise :class:`InvalidName`.

    >>> check_name("fan-failure.v2")
    'fan-failure.v2'
    """
    if text in RESERVED:
        raise InvalidName(
            f"{text!r} cannot be a model name: it means something else in an image reference",
            hint="choose another name",
        )
    return check_word(text, "model name")


def check_word(text: str, what: str) -> str:
    """Return ``text`` if it can safely be a directory, a tag and a label; else raise."""
    if len(text) > MAX_NAME or not _NAME.fullmatch(text):
        article = "an" if what[0] in "aeiou" else "a"
        raise InvalidName(f"{text!r} is not {article} {what}")
    return text


Framework = Literal["onnx", "sklearn", "directory"]
Dimension = int | str | None
"""A size, the name of a size that is free (``N``), or nothing known."""

LATEST = "latest"
"""The name of the newest version, whichever it is; no version can have it."""

SCORING = "score.py"
"""The path of a scoring script that is shipped alone, whatever the user calls it."""


_TAKEN = frozenset({"azureml-models", "mlpack", "mlpack.json"})
"""What a release has below ``/var/azureml-app`` besides the script and its code."""


def check_version(text: str) -> str:
    """Return ``text`` if it can be a model version; else raise."""
    if text == LATEST:
        raise UsageError(
            f"{LATEST!r} means the newest version and cannot be one",
            hint="give a number or leave --version out",
        )
    return check_word(text, "version")


def parse_name(text: str) -> tuple[str, str]:
    """Split ``NAME[:VERSION]`` or ``NAME@ALIAS``; without a version it is :data:`LATEST`.

    An alias keeps its ``@``, with which no version begins.

    >>> parse_name("fan:3"), parse_name("fan"), parse_name("fan@champion")
    (('fan', '3'), ('fan', 'latest'), ('fan', '@champion'))
    """
    name, at, alias = text.partition("@")
    if at:
        return check_name(name), f"{AT}{check_alias(alias)}"
    name, colon, version = text.partition(":")
    check_name(name)
    if not colon or version == LATEST:
        return name, LATEST
    return name, check_version(version)


AT = "@"
"""What an alias begins with where a version is taken."""

_NOT_AN_ALIAS = re.compile(r"v?[0-9].*|sha(?:256|384|512)(?:[^a-z].*)?|[0-9a-f]{12,}")


def check_alias(text: str) -> str:
    """Return ``text`` if it can be an alias of a version; else raise.

    Raises :class:`~mlpack.errors.UsageError` for ``latest``, for what looks like a version number
    or a digest, and :class:`InvalidName`.
    """
    if text == LATEST:
        raise UsageError(
            f"{LATEST!r} means the newest version and cannot be an alias",
            hint="choose another name",
        )
    if _NOT_AN_ALIAS.fullmatch(text):
        raise UsageError(
            f"{text!r} cannot be an alias: it looks like a version or a digest",
            hint="an alias is a word, such as champion; a version is written as NAME:VERSION",
        )
    return check_word(text, "alias")


@dataclass(frozen=True, slots=True, order=True)
class ModelFile:
    """One file: a relative POSIX path, its bytes and their digest."""

    path: str
    size: int
    digest: Digest

    @classmethod
    def from_json(cls, node: Node) -> ModelFile:
        """Read a file of a document; its path is checked."""
        path = node.need("path").text()
        check_path(path)
        return cls(path, node.need("size").integer(), Digest.from_json(node.need("digest")))


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model."""

    name: str
    dtype: str
    """NumPy's name of the element type (``float32``), or a description of another value."""

    shape: tuple[Dimension, ...] | None
    """``None`` where not even the number of dimensions is known."""

    optional: bool = field(default=False, metadata=IF_SET)
    """Whether it is an input with a default, which a request may leave out."""

    def __str__(self) -> str:
        optional = " (optional)" if self.optional else ""
        if self.shape is None:
            return f"{self.name}: {self.dtype}{optional}"
        sizes = ", ".join("?" if each is None else str(each) for each in self.shape)
        return f"{self.name}: {self.dtype} [{sizes}]{optional}"

    @classmethod
    def from_json(cls, node: Node) -> TensorSpec:
        """Read a member of a document."""
        shape = node.get("shape")
        sizes = tuple(_dimension(each) for each in shape.elements()) if shape else None
        return cls(
            node.need("name").text(),
            node.need("dtype").text(),
            sizes,
            optional=_flag(node.get("optional")),
        )


@dataclass(frozen=True, slots=True)
class ModelSignature:
    """A model's inputs and outputs; both empty if they are not known."""

    inputs: tuple[TensorSpec, ...] = ()
    """Those with a default come last."""

    outputs: tuple[TensorSpec, ...] = ()

    @classmethod
    def from_json(cls, node: Node) -> ModelSignature:
        """Read a member of a document."""
        return cls(
            tuple(TensorSpec.from_json(each) for each in node.need("inputs").elements()),
            tuple(TensorSpec.from_json(each) for each in node.need("outputs").elements()),
        )


@dataclass(frozen=True, slots=True)
class SourceVersion:
    """A version that another was made from: its ``NAME:VERSION`` at that time, and its digest."""

    version: str
    digest: Digest

    @classmethod
    def from_json(cls, node: Node) -> SourceVersion:
        """Read the member ``exact`` or ``anchor`` of a derivation."""
        return cls(node.need("version").text(), Digest.from_json(node.need("digest")))


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundingPoint:
    """A rounding that was compared with the exact version: bytes of its patch, and quality."""

    patch: int
    """Estimated, except that of the version itself."""

    max_error: float
    agreement: float | None
    accuracy: float | None

    @classmethod
    def from_json(cls, node: Node) -> RoundingPoint:
        """Read an element of ``curve``; a null error is infinite."""
        return cls(
            patch=node.need("patch").integer(),
            max_error=_error(node),
            agreement=_optional(node.get("agreement")),
            accuracy=_optional(node.get("accuracy")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """How a version was rounded, and how it compares with the exact one (docs/concepts/patch.md).

    Shares are 0 to 1. Numbers of the proof are those of the machine it was made on.
    """

    exact: SourceVersion
    anchor: SourceVersion
    """The version that patches are made against: changes to it were rounded."""

    check: str
    """sha256 of the file of check data, in hexadecimal."""

    rows: int
    max_error: float
    """Infinite if an output was not a number, which JSON writes as null."""

    max_error_allowed: float | None
    agreement: float | None
    agreement_wanted: float | None
    exact_accuracy: float | None
    rounded_accuracy: float | None
    onnxruntime: str
    """The version that scored."""

    exact_patch: int
    rounded_patch: int
    """Bytes of a patch of the anchor."""

    accuracy_wanted: float | None = None
    curve: tuple[RoundingPoint, ...] = ()
    """Other roundings that were compared, the smallest first."""

    @classmethod
    def from_json(cls, node: Node) -> Derivation:
        """Read the member ``derived`` of a document; a null error is infinite."""
        curve = node.get("curve")
        return cls(
            exact=SourceVersion.from_json(node.need("exact")),
            anchor=SourceVersion.from_json(node.need("anchor")),
            check=node.need("check").text(),
            rows=node.need("rows").integer(),
            max_error=_error(node),
            max_error_allowed=_optional(node.get("max_error_allowed")),
            agreement=_optional(node.get("agreement")),
            agreement_wanted=_optional(node.get("agreement_wanted")),
            exact_accuracy=_optional(node.get("exact_accuracy")),
            rounded_accuracy=_optional(node.get("rounded_accuracy")),
            onnxruntime=node.need("onnxruntime").text(),
            exact_patch=node.need("exact_patch").integer(),
            rounded_patch=node.need("rounded_patch").integer(),
            accuracy_wanted=_optional(node.get("accuracy_wanted")),
            curve=tuple(map(RoundingPoint.from_json, curve.elements())) if curve else (),
        )


def _error(node: Node) -> float:
    found = _optional(node.get("max_error"))
    return inf if found is None else found


def _optional(node: Node | None) -> float | None:
    return None if node is None else number(node)


def _flag(node: Node | None) -> bool:
    if node is not None and not isinstance(node.value, bool):
        raise InvalidContent(node.where, "is neither true nor false")
    return node is not None and node.value is True


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """A model version: its content, what is known of it, and what the user says of it.

    Everything a build asks is here, so that no build has to read an ONNX file.
    """

    name: str
    version: str
    framework: Framework
    """What the user gave; ``sklearn`` was converted, its files are ONNX."""

    files: tuple[ModelFile, ...]
    """In the order of their paths."""

    folder: str = field(default="", metadata=IF_SET)
    """The folder's own name, below which a script finds the files, as in Azure ML; empty if they
    lie in ``AZUREML_MODEL_DIR`` itself."""

    scoring: ModelFile | None = None
    code: tuple[ModelFile, ...] = field(default=(), metadata=IF_SET)
    """Modules and files that are shipped with the script; paths of both are below
    ``/var/azureml-app``."""

    signature: ModelSignature = field(default_factory=ModelSignature)
    ir_version: int = 0
    """ONNX's file format revision; 0 where no ONNX file was read."""

    opsets: Mapping[str, int] = field(default_factory=dict, metadata=SORTED)
    """Operator domain → opset the model declares; ONNX's own is ``ai.onnx``."""

    domains: tuple[str, ...] = ()
    """Domains of the operators it uses and does not define itself, sorted."""

    tags: Mapping[str, str] = field(default_factory=dict, metadata=SORTED)
    metrics: Mapping[str, str] = field(default_factory=dict, metadata=SORTED)
    """Name → number, as the user wrote it."""

    source_commit: str = ""
    created: str = ""
    """When it was registered (ISO 8601, UTC)."""

    rows_independent: bool = field(default=False, metadata=IF_SET)
    """Whether row i of each output is proved to depend on row i of the inputs alone."""

    derived: Derivation | None = field(default=None, metadata=IF_SET)
    """How it was made from other versions, if it was; not part of the content's digest."""

    compared: Comparison | None = field(default=None, metadata=IF_SET)
    """How it answers compared with the estimator it was converted from, if it was."""

    @cached_property
    def digest(self) -> Digest:
        """The content's name: of the files, the script and its code, no name, clock or tag."""
        return content_digest(self.files, self.scoring, self.code, self.folder)

    @property
    def scripts(self) -> tuple[ModelFile, ...]:
        """The scoring script and the code shipped with it."""
        return (*((self.scoring,) if self.scoring else ()), *self.code)

    @property
    def size(self) -> int:
        """Bytes of all files, the scoring script and its code."""
        return sum(each.size for each in (*self.files, *self.scripts))

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"

    @classmethod
    def from_json(cls, node: Node) -> ModelVersion:
        """Read the document of a model version (docs/reference/formats.md)."""
        scoring, derived = node.get("scoring"), node.get("derived")
        compared = node.get("compared")
        code, folder = node.get("code"), node.get("folder")
        return cls(
            name=check_name(node.need("name").text()),
            version=check_word(node.need("version").text(), "version"),
            framework=_framework(node.need("framework")),
            files=tuple(sorted(ModelFile.from_json(e) for e in node.need("files").elements())),
            folder=check_folder(folder) if folder else "",
            scoring=_script(scoring) if scoring else None,
            code=tuple(map(_script, code.elements())) if code else (),
            signature=ModelSignature.from_json(node.need("signature")),
            ir_version=node.need("ir_version").integer(),
            opsets={key: each.integer() for key, each in node.need("opsets").items()},
            domains=node.need("domains").texts(),
            tags=node.need("tags").text_map(),
            metrics=node.need("metrics").text_map(),
            source_commit=node.need("source_commit").text(),
            created=node.need("created").text(),
            rows_independent=_flag(node.get("rows_independent")),
            derived=Derivation.from_json(derived) if derived else None,
            compared=Comparison.from_json(compared) if compared else None,
        )


def check_script_path(path: str) -> None:
    """Raise :class:`UsageError` if a script or its code would replace other files of a release."""
    if path.partition("/")[0] in _TAKEN:
        raise UsageError(
            f"{path} cannot be shipped with a script: a release has files of its own there",
            hint="rename it",
        )


def _script(node: Node) -> ModelFile:
    found = ModelFile.from_json(node)
    if found.path.partition("/")[0] in _TAKEN:
        raise InvalidContent(node.where, f"{found.path!r} is a path of the release's own files")
    return found


def check_folder(node: Node) -> str:
    """Return a document's name of a folder; raise if it could not be one."""
    name = node.text()
    check_path(name)
    if "/" in name:
        raise InvalidContent(node.where, f"{name!r} is not the name of a folder")
    return name


def content_digest(
    files: Iterable[ModelFile],
    scoring: ModelFile | None,
    code: Iterable[ModelFile] = (),
    folder: str = "",
) -> Digest:
    """The digest of what a device would get: paths and bytes, in the order of the paths."""
    listed = [document(each) for each in sorted(code)]
    return Digest.of(
        canonical(
            {
                "files": [document(each) for each in sorted(files)],
                "scoring": document(scoring) if scoring else None,
                **({"code": listed} if listed else {}),
                **({"folder": folder} if folder else {}),
            }
        )
    )


def _framework(node: Node) -> Framework:
    text = node.text()
    for known in get_args(Framework):
        if text == known:
            found: Framework = known
            return found
    raise InvalidContent(node.where, f"{text!r} is not a framework this mlpack knows")


def _dimension(node: Node) -> Dimension:
    if node.value is None or isinstance(node.value, str):
        return node.value
    return node.integer()
