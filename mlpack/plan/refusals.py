"""Whether an engine takes an image: what it refuses to pull, and what it unpacks to other files.

What an engine takes is a value, :class:`ImageSupport`, in its file of :mod:`mlpack.plan.engines`,
where the question is asked (:meth:`~mlpack.plan.engines.EngineRule.refusals`). Each answer was
measured: ``tests/e2e/test_engine_rules.py`` pulls an image of each kind with each engine. Facts
about the content of layers (:class:`~mlpack.oci.unpacking.LayerFacts`) are gathered by who has the
layers; without them a layer is taken to be what its media type says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import parse
from mlpack.oci.image import Image, Index, Layer
from mlpack.oci.platforms import fits
from mlpack.oci.unpacking import Altered, Cause, Compression, LayerFacts, Unpacking

Effect = Literal["refused", "altered"]
"""The engine ends with an error, or unpacks other files than the image holds."""

GRAFT = "write it as one layer that every engine takes: mlpack graft OLD NEW -o REF"
_GZIP_COPY = "mlpack graft OLD NEW writes a gzip layer; or copy it with gzip layers: "
_GZIP_COPY += "skopeo copy --dest-compress-format gzip FROM oci:DIR:TAG"
_FEWER = "build it with fewer layers, in several stages with one COPY --from=… /, or squashed"
_OCI_COPY = "copy it into a layout, which has OCI types: mlpack copy FROM oci:DIR:TAG"
_ARTIFACT = "name an image: this is an artifact, such as a chart or a signature"
_ENTRY = "name the image itself by its digest, or write an index that lists it with its platform"
_DECRYPT = "decrypt it first: skopeo copy --decryption-key KEY FROM TO"
_URLS = "host the layer in the registry, without urls"

OCTETS = "application/octet-stream"
LAYER_PREFIXES = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")
OCI_LAYERS = frozenset(
    f"application/vnd.oci.image.layer.{kind}v1.tar{packed}"
    for kind in ("", "nondistributable.")
    for packed in ("", "+gzip", "+zstd")
)
DOCKER_LAYERS = frozenset(
    f"application/vnd.docker.image.rootfs.{kind}diff.tar{packed}"
    for kind in ("", "foreign.")
    for packed in ("", ".gzip")
)
_BY_TYPE: tuple[tuple[str, Compression], ...] = (
    ("gzip", "gzip"),
    ("zstd", "zstd"),
    ("bzip2", "bzip2"),
    ("xz", "xz"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One reason why an engine does not take an image as it is."""

    engine: str
    """The measured version: ``Docker 20.10.24``."""

    effect: Effect
    where: str
    """The part of the image: ``layer 3 (e3b0c44298fc)``, ``the config``."""

    why: str
    remedy: str
    """What to do."""

    @property
    def verb(self) -> str:
        """What the engine does to an image, or to a part of it."""
        return "refuses" if self.effect == "refused" else "unpacks other files of"

    def __str__(self) -> str:
        return f"{self.engine} {self.verb} {self.where}: {self.why}"


class NotTaken(MlpackError):
    """An image that an engine does not take."""


def require_taken(name: str, refusals: Sequence[Refusal], *, way: str = "") -> None:
    """Raise :class:`NotTaken` for the image ``name`` unless there are no ``refusals``.

    ``way`` is another thing to do than the first refusal's remedy.
    """
    if refusals:
        more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
        raise NotTaken(f"{name}: {refusals[0]}{more}", hint=way or refusals[0].remedy)


def warnings(refusals: Iterable[Refusal]) -> tuple[str, ...]:
    """Write each refusal as a line with what to do."""
    return tuple(f"{each}; {each.remedy}" for each in refusals)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSupport:
    """What an engine pulls and unpacks; the default takes everything."""

    most_layers: int = 500
    """Layers that it mounts at once; 500 are overlayfs's own limit."""

    configs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Media types of configs it takes, by that of the manifest; others are taken with any."""

    layers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """As :attr:`configs`, for layers."""

    layer_prefixes: tuple[str, ...] = ("",)
    """How the media types of layers that it takes begin."""

    compressions: frozenset[Compression] = frozenset({"none", "gzip", "zstd", "bzip2", "xz"})
    """What it unpacks, told by a layer's first bytes."""

    plain_types: bool = True
    """Whether it looks at these first bytes even if the media type says that nothing is packed."""

    fetches_urls: bool = False
    """Whether a layer with ``urls`` is fetched from them and not from the registry."""

    nested: bool = True
    """Whether it looks into an index in an index."""

    needs_platform: frozenset[str] = frozenset()
    """Media types of indexes of which it takes entries with a platform only."""

    unpacking: Unpacking = field(default_factory=Unpacking)


def image_refusals(
    engine: str, support: ImageSupport, image: Image, facts: Sequence[LayerFacts]
) -> Iterator[Refusal]:
    """Yield why ``engine`` does not take ``image``; ``facts`` are of its layers, or none."""
    for where, why, remedy in _document_problems(support, image):
        yield Refusal(engine=engine, effect="refused", where=where, why=why, remedy=remedy)
    kind, urls = image.descriptor.media_type, _layers_with_urls(image)
    for number, layer in enumerate(image.layers):
        where, fact = f"layer {number + 1} ({layer.digest.short})", _at(facts, number)
        problems = list(_layer_problems(support, kind, layer, fact))
        if number in urls and support.fetches_urls:
            problems.append((f"it is fetched from {urls[number]}", _URLS))
        if fact and fact.broken:
            problems.append((fact.broken, GRAFT))
        for why, remedy in problems:
            yield Refusal(engine=engine, effect="refused", where=where, why=why, remedy=remedy)
        if fact and fact.altered:
            why = _altered(fact.altered)
            yield Refusal(engine=engine, effect="altered", where=where, why=why, remedy=GRAFT)


def _document_problems(support: ImageSupport, image: Image) -> Iterator[tuple[str, str, str]]:
    """Yield what of the manifest is not taken, why, and what to do."""
    kind, config = image.descriptor.media_type, image.config_descriptor.media_type
    if config not in support.configs.get(kind, frozenset({config})):
        known = config in media.CONFIGS
        why = f"{config} in {kind}" if known else f"{config} is not an image's"
        yield "the config", why, _OCI_COPY if known else _ARTIFACT
    count = len(image.layers)
    if count > support.most_layers:
        why = f"it has {count} layers, and {support.most_layers} are the most"
        yield "the image", why, _FEWER


def _at(facts: Sequence[LayerFacts], number: int) -> LayerFacts | None:
    return facts[number] if number < len(facts) else None


def _layer_problems(
    support: ImageSupport, kind: str, layer: Layer, fact: LayerFacts | None
) -> Iterator[tuple[str, str]]:
    """Yield why the blob of a layer is not taken, and what to do."""
    said = layer.descriptor.media_type
    if said.endswith("+encrypted"):
        yield "it is encrypted", _DECRYPT
        return
    taken = said in support.layers.get(kind, frozenset({said}))
    if not taken or not said.startswith(support.layer_prefixes):
        known = said.startswith(LAYER_PREFIXES)
        yield (
            f"{said} in {kind}" if known else f"{said} is not an image's",
            _OCI_COPY if known else _ARTIFACT,
        )
        return
    packed = fact.compression if fact else _declared(said)
    if packed not in support.compressions:
        yield f"it is {packed}, which is not unpacked", _GZIP_COPY
    elif packed != "none" and not support.plain_types and _declared(said) == "none":
        yield f"it is {packed}, and {said} says plain tar", _GZIP_COPY


def _declared(media_type: str) -> Compression:
    """Return the compression that a media type names."""
    return next((kind for end, kind in _BY_TYPE if media_type.endswith(end)), "none")


def _layers_with_urls(image: Image) -> Mapping[int, str]:
    listed = parse(image.manifest, "manifest").need("layers").elements()
    urls = ((number, each.get("urls")) for number, each in enumerate(listed))
    return {number: found.texts()[0] for number, found in urls if found and found.texts()}


_CAUSES: Mapping[Cause, str] = {
    "symlink": "it puts files through {paths}, a symlink below it, which becomes a directory",
    "root": "it has an opaque mark for the root, which marks nothing: the files below it stay",
    "parent": "it does not list {paths}, which loses its owner and mode",
    "kept": "it removes a directory and makes it again, and {paths} in it stays",
    "mark": "it has overlayfs's own attribute, which hides {paths}",
}


def _altered(altered: Sequence[Altered]) -> str:
    """Say what is altered, by its causes."""
    told = []
    for cause, text in _CAUSES.items():
        paths = [each.path for each in altered if each.cause == cause]
        if paths:
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            told.append(text.format(paths=f"{paths[0]!r}{more}"))
    return "; ".join(told)


def index_refusals(
    engine: str, support: ImageSupport, index: Index, image: Image
) -> Iterator[Refusal]:
    """Yield why ``engine`` does not find ``image`` by ``index``, which lists it."""
    kind = index.descriptor.media_type
    told = [each for each in index.entries if each.platform and fits(each.platform, image.platform)]
    untold = [each for each in index.entries if each.platform is None]
    if kind in support.needs_platform:
        candidates, why = told, "it lists no image with that platform"
    else:
        # The first entry without a platform is taken where no other fits.
        candidates, why = (told or untold)[:1], "it lists another image first, without a platform"
        if not told and untold and untold[0].media_type in media.MANIFESTS:
            candidates = [each for each in candidates if each.digest == image.digest]
    if not support.nested:
        inner = [each for each in candidates if each.media_type in media.INDEXES]
        candidates = [each for each in candidates if each not in inner]
        why = f"its entry {inner[0].digest.short} is an index itself" if inner else why
    if not candidates:
        where = f"the index {index.digest.short} for {image.platform}"
        yield Refusal(engine=engine, effect="refused", where=where, why=why, remedy=_ENTRY)
