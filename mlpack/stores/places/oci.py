"""``oci:PATH[:NAME][@sha256:…]``: an OCI image layout, to read from and to copy to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlpack.errors import UsageError
from mlpack.model.version import LATEST
from mlpack.oci.descriptor import Descriptor, Digest, InvalidDigest
from mlpack.stores.layout import REF_NAME, LayoutStore
from mlpack.stores.store import DOCUMENTS, NotFound, Readable, Store

_AT = "@sha256:"


def read(text: str, directory: Path) -> tuple[Readable, Descriptor]:
    """Find the image at ``PATH``, by its name or its digest; without these the only one."""
    path, name, digest = _split(text, directory)
    layout = LayoutStore.existing(directory / path)
    try:
        if digest:
            return layout, layout.find(Digest.parse(digest))
        if name:
            return layout, layout.resolve(name)
    except InvalidDigest as error:
        raise UsageError(str(error), hint="write it as oci:PATH@sha256:…") from error
    except NotFound as error:
        raise NotFound(str(error), hint=f"it has: {_offered(layout)}") from error
    found = {each.digest: each for each in _images(layout)}
    if len(found) != 1:
        raise UsageError(
            f"{path} holds {len(found)} images",
            hint=f"add :TAG, one of: {_offered(layout)}",
        )
    return layout, next(iter(found.values()))


def write(text: str, directory: Path) -> tuple[Store, str]:
    """Return the layout at ``PATH[:TAG]``, created if missing, and the tag (``latest``).

    Raises :class:`~mlpack.stores.layout.NamedTwice` for a tag that is several images' there.
    """
    path, name, digest = _split(text, directory)
    if not path or text.endswith(":") or digest:
        raise UsageError(f"'oci:{text}' lacks a path or tag", hint="write it as oci:PATH:TAG")
    layout, name = LayoutStore(directory / path), name or LATEST
    layout.check_free(name)
    return layout, name


def _images(layout: LayoutStore) -> Iterator[Descriptor]:
    listed = layout.entries()
    return (e for e in listed if e.media_type in DOCUMENTS and not e.artifact_type)


def _offered(layout: LayoutStore) -> str:
    """What can be written behind the path: tags, and digests of what has none of its own."""
    named: dict[str, set[Digest]] = {}
    for each in _images(layout):
        named.setdefault(each.annotations.get(REF_NAME, ""), set()).add(each.digest)
    own = [name for name, digests in named.items() if name and len(digests) == 1]
    others = [f"@{digest}" for name in named.keys() - set(own) for digest in named[name]]
    return ", ".join([*sorted(own), *sorted(others)]) or "no names"


def _split(text: str, directory: Path) -> tuple[str, str, str]:
    """Return path, name and digest; what exists as a directory is the path, colons and all."""
    before, at, digest = text.rpartition(_AT)
    if at and not (directory / text).is_dir():
        path, name, _ = _split(before, directory)
        return path, name, f"{at[1:]}{digest}"
    ends = [len(text), *(n for n in range(len(text) - 1, 0, -1) if text[n] == ":")]
    exists = (end for end in ends if (directory / text[:end]).is_dir())
    end = next(exists, text.rfind(":") if ":" in text else len(text))
    return text[:end], text[end + 1 :], ""
