"""Image references: ``registry/repository[:tag][@digest]`` (distribution-spec, *Pulling*)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from mlpack.errors import UsageError
from mlpack.oci.digest import Digest, InvalidDigest

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_REGISTRY = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?"
)


class InvalidReference(UsageError):
    """A text that is not an image reference."""

    hint = "write it as registry.example.com/team/model:tag or …@sha256:…"


@dataclass(frozen=True, slots=True)
class Reference:
    """Where an image is. There is no default registry: ``fan`` alone is refused."""

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference.

        >>> Reference.parse("localhost:5000/edge/fan:3").repository
        'edge/fan'
        """
        name, at, digest_text = text.partition("@")
        registry, slash, rest = name.partition("/")
        repository, _, tag = rest.partition(":")
        if not slash or not _REGISTRY.fullmatch(registry):
            raise InvalidReference(f"{text!r} names no registry")
        if not ("." in registry or ":" in registry or registry == "localhost"):
            raise InvalidReference(f"{text!r} names no registry ({registry!r} is not a host)")
        if not _REPOSITORY.fullmatch(repository):
            raise InvalidReference(f"{text!r}: {repository!r} is not a repository name")
        if (":" in rest and not _TAG.fullmatch(tag)) or (at and not digest_text):
            raise InvalidReference(f"{text!r} has a tag or digest that cannot be read")
        try:
            digest = Digest.parse(digest_text) if at else None
        except InvalidDigest as error:
            raise InvalidReference(f"{text!r}: {error}") from error
        return cls(registry, repository, tag, digest)

    @classmethod
    def parse_repository(cls, text: str) -> Reference:
        """Read a reference that names a repository only: no tag, no digest."""
        found = cls.parse(text)
        if found.tag or found.digest:
            raise InvalidReference(
                f"{text!r} has a tag or digest, which each release brings itself",
                hint=f"write {found.name}",
            )
        return found

    @property
    def name(self) -> str:
        """Registry and repository, without tag or digest."""
        return f"{self.registry}/{self.repository}"

    def pinned(self, digest: Digest) -> Reference:
        """The same repository at ``digest``, without a tag: edgeAgent refuses both at once."""
        return replace(self, tag="", digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{f'@{self.digest}' if self.digest else ''}"
