"""A model version as a value: its files, its tensors, what it asks of a runtime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

from mlpack.errors import UsageError
from mlpack.model.derivation import Derivation
from mlpack.model.recipe import check_name, check_word
from mlpack.oci.digest import Digest
from mlpack.oci.document import InvalidContent, Node, canonical
from mlpack.oci.tree import check_path

Framework = Literal["onnx", "sklearn", "directory"]
Dimension = int | str | None
"""A size, the name of a size that is free (``N``), or nothing known."""

LATEST = "latest"
"""Stands for the newest version where one is asked for; no version can be called so."""

SCORING = "score.py"
"""The scoring script's path, below ``/var/azureml-app`` too, whatever the user calls it."""


def check_version(text: str) -> str:
    """Return ``text`` if it can be a model version; else raise."""
    if text == LATEST:
        raise UsageError(
            f"{LATEST!r} stands for the newest version and cannot be one",
            hint="give a number or leave --version out",
        )
    return check_word(text, "version")


def parse_name(text: str) -> tuple[str, str]:
    """Split ``NAME[:VERSION]``; without a version it is :data:`LATEST`.

    >>> parse_name("fan:3"), parse_name("fan")
    (('fan', '3'), ('fan', 'latest'))
    """
    name, colon, version = text.partition(":")
    check_name(name)
    if not colon or version == LATEST:
        return name, LATEST
    return name, check_version(version)


def version_order(version: str) -> tuple[int, int, str]:
    """Sort key: whole numbers by value, and before other texts.

    >>> sorted(["10", "9", "beta"], key=version_order)
    ['9', '10', 'beta']
    """
    return (0, int(version), "") if version.isdecimal() else (1, 0, version)


def next_version(versions: Iterable[str]) -> str:
    """The whole number after the greatest one in ``versions``; other texts do not count.

    >>> next_version(["1", "9", "beta"]), next_version([])
    ('10', '1')
    """
    return str(max((int(each) for each in versions if each.isdecimal()), default=0) + 1)


@dataclass(frozen=True, slots=True, order=True)
class ModelFile:
    """One file: a relative POSIX path, its bytes and their digest."""

    path: str
    size: int
    digest: Digest

    def to_json(self) -> dict[str, object]:
        """For the model version's document."""
        return {"path": self.path, "size": self.size, "digest": str(self.digest)}

    @classmethod
    def from_json(cls, node: Node) -> ModelFile:
        """Read what :meth:`to_json` wrote; the path is checked again."""
        path = node.need("path").text()
        check_path(path)
        return cls(path, node.need("size").integer(), Digest.from_json(node.need("digest")))


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model."""

    name: str
    dtype: str
    """NumPy's name of the element type (``float32``), or a description of what is no tensor."""

    shape: tuple[Dimension, ...] | None
    """``None`` where not even the number of dimensions is known."""

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.name}: {self.dtype}"
        sizes = ", ".join("?" if each is None else str(each) for each in self.shape)
        return f"{self.name}: {self.dtype} [{sizes}]"

    def to_json(self) -> dict[str, object]:
        """For the model version's document."""
        shape = None if self.shape is None else list(self.shape)
        return {"name": self.name, "dtype": self.dtype, "shape": shape}

    @classmethod
    def from_json(cls, node: Node) -> TensorSpec:
        """Read what :meth:`to_json` wrote."""
        shape = node.get("shape")
        sizes = tuple(_dimension(each) for each in shape.elements()) if shape else None
        return cls(node.need("name").text(), node.need("dtype").text(), sizes)


@dataclass(frozen=True, slots=True)
class Signature:
    """What goes into a model and what comes out; both empty where it is not known."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()

    def to_json(self) -> dict[str, object]:
        """For the model version's document."""
        return {
            "inputs": [each.to_json() for each in self.inputs],
            "outputs": [each.to_json() for each in self.outputs],
        }

    @classmethod
    def from_json(cls, node: Node) -> Signature:
        """Read what :meth:`to_json` wrote."""
        return cls(
            tuple(TensorSpec.from_json(each) for each in node.need("inputs").elements()),
            tuple(TensorSpec.from_json(each) for each in node.need("outputs").elements()),
        )


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

    scoring: ModelFile | None = None
    signature: Signature = field(default_factory=Signature)
    ir_version: int = 0
    """ONNX's file format revision; 0 where no ONNX file was read."""

    opsets: Mapping[str, int] = field(default_factory=dict)
    """Operator domain → opset the model declares; ONNX's own is ``ai.onnx``."""

    domains: tuple[str, ...] = ()
    """Domains of the operators it uses and does not define itself, sorted."""

    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Name → number, as the user wrote it."""

    source_commit: str = ""
    created: str = ""
    """When it was registered (ISO 8601, UTC)."""

    derived: Derivation | None = None
    """How it was made of other versions, where it was; no part of the content's digest."""

    @cached_property
    def digest(self) -> Digest:
        """The content's name: of the files and the scoring script, no name, clock or tag."""
        return content_digest(self.files, self.scoring)

    @property
    def size(self) -> int:
        """Bytes of all files and the scoring script."""
        return sum(each.size for each in self.files) + (self.scoring.size if self.scoring else 0)

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"

    def to_json(self) -> dict[str, object]:
        """The model version's document (docs/formats.md); its digest follows from it, unwritten."""
        return {
            "name": self.name,
            "version": self.version,
            "framework": self.framework,
            "files": [each.to_json() for each in self.files],
            "scoring": self.scoring.to_json() if self.scoring else None,
            "signature": self.signature.to_json(),
            "ir_version": self.ir_version,
            "opsets": dict(sorted(self.opsets.items())),
            "domains": list(self.domains),
            "tags": dict(sorted(self.tags.items())),
            "metrics": dict(sorted(self.metrics.items())),
            "source_commit": self.source_commit,
            "created": self.created,
            # Only where there is one: documents of other versions stay what they are.
            **({"derived": self.derived.to_json()} if self.derived else {}),
        }

    @classmethod
    def from_json(cls, node: Node) -> ModelVersion:
        """Read what :meth:`to_json` wrote; raise :class:`InvalidContent` with the place."""
        scoring, derived = node.get("scoring"), node.get("derived")
        return cls(
            name=check_name(node.need("name").text()),
            version=check_word(node.need("version").text(), "version"),
            framework=_framework(node.need("framework")),
            files=tuple(sorted(ModelFile.from_json(e) for e in node.need("files").elements())),
            scoring=ModelFile.from_json(scoring) if scoring else None,
            signature=Signature.from_json(node.need("signature")),
            ir_version=node.need("ir_version").integer(),
            opsets={key: each.integer() for key, each in node.need("opsets").items()},
            domains=node.need("domains").texts(),
            tags=node.need("tags").text_map(),
            metrics=node.need("metrics").text_map(),
            source_commit=node.need("source_commit").text(),
            created=node.need("created").text(),
            derived=Derivation.from_json(derived) if derived else None,
        )


def content_digest(files: Iterable[ModelFile], scoring: ModelFile | None) -> Digest:
    """The digest of what a device would get: paths and bytes, in the order of the paths."""
    return Digest.of(
        canonical(
            {
                "files": [each.to_json() for each in sorted(files)],
                "scoring": scoring.to_json() if scoring else None,
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
