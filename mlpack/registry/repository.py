"""The repositories of registries as stores (OCI distribution-spec 1.1).

One client and one login per registry serve all of them. Registries without the referrers API have
an index of referrers that clients keep (*Referrers tag schema*).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlencode, urljoin, urlsplit

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest, InvalidContent, Reference, canonical, parse
from mlpack.oci.image import Index
from mlpack.oci.reference import host_of
from mlpack.registry.auth import LoginState
from mlpack.registry.counting_transport import Traffic
from mlpack.registry.credentials import find_credentials
from mlpack.registry.download import Download
from mlpack.registry.http import Client
from mlpack.registry.http_types import (
    RegistryError,
    Request,
    Response,
    StatusError,
    Unreachable,
    origin,
)
from mlpack.registry.session import ACCEPT, RegistrySession, RepositorySession, accept
from mlpack.registry.upload import BlobUpload, UploadCorrupted, UploadLost, location
from mlpack.stores.store import (
    CHUNK,
    DOCUMENTS,
    Corrupt,
    NotFound,
    Readable,
    ReferrersUnsupported,
    VerifyingReader,
    check_size,
    not_found,
    parts,
    read,
    verified,
)

UNSUPPORTED = frozenset({400, 404, 405, 406, 413, 415, 422, 501})
"""Responses of a registry that keeps images only; others, such as 403 or 500, are errors."""


def fallback_tag(subject: Descriptor) -> str:
    """Return the tag of the index of ``subject``'s referrers.

    >>> fallback_tag(Descriptor.of(b"", media.MANIFEST))[:20]
    'sha256-e3b0c44298fc1'
    """
    return f"sha256-{subject.digest.hex}"


def with_referrer(
    held: tuple[Descriptor, bytes] | None, referrer: Descriptor, content: bytes, tag: str
) -> bytes | None:
    """Return the index at ``tag`` with ``referrer`` added, or ``None`` if it lists it.

    ``content`` is the referrer's manifest; ``held`` is the index so far, whose other members
    stay. Raises :class:`ReferrersUnsupported` if the tag is something else.
    """
    entry = _entry(referrer, content)
    listed: list[object] = []
    kept: dict[str, object] = {}
    if held is not None:
        document = parse(held[1], tag)
        if held[0].media_type != media.INDEX:
            raise ReferrersUnsupported(f"tag {tag} is not an index of referrers; it is unchanged")
        try:
            nodes = list(document.need("manifests").elements())
            if any(node.need("digest").value == entry["digest"] for node in nodes):
                return None
        except InvalidContent as error:
            raise ReferrersUnsupported(f"{error}; the tag is unchanged") from error
        listed = [node.value for node in nodes]
        kept = dict(document.mapping())
    kept.update({"schemaVersion": 2, "mediaType": media.INDEX, "manifests": [*listed, entry]})
    return canonical(kept)


def _entry(referrer: Descriptor, content: bytes) -> dict[str, object]:
    """The descriptor of ``referrer`` as an index of referrers lists it."""
    manifest = parse(content, "manifest")
    kind, annotations = manifest.get("artifactType"), manifest.get("annotations")
    described = Descriptor(
        referrer.media_type,
        referrer.digest,
        referrer.size,
        annotations.text_map() if annotations else {},
        artifact_type=(kind or manifest.need("config").need("mediaType")).text(),
    )
    return described.to_json()


_RESTARTS = 3
_MAX_PAGES = 1000


class RegistryStore:
    """Manifests, blobs and tags of one repository; from any number of threads.

    Manifests seen are kept in memory, each at most 4 MiB: they are looked up, tagged and read
    again, and may come over a device's link.
    """

    def __init__(self, session: RegistrySession, place: Reference, *, push: bool = False) -> None:
        self.place = replace(place, tag="", digest=None)
        scope = f"repository:{place.repository}:{'pull,push' if push else 'pull'}"
        self.session = RepositorySession(session, place.repository, scope)
        self._documents: dict[Digest, bytes] = {}
        self._absent: set[Digest] = set()
        self._opened: dict[Digest, str] = {}

    def exists(self, target: Descriptor) -> bool:
        """Whether the repository holds ``target``; one request."""
        found = self.session.exists(target)
        if not found:
            self._absent.add(target.digest)
        return found

    def has_all(self, target: Descriptor) -> bool:
        """Whether it holds ``target`` and all below: a registry refuses incomplete manifests."""
        return self.exists(target)

    @contextmanager
    def open(self, target: Descriptor) -> Iterator[BinaryIO]:
        """Open ``target`` unverified; a download that breaks is resumed where it broke."""
        if target.digest in self._documents:
            yield io.BytesIO(self._documents[target.digest])
        elif target.media_type in DOCUMENTS:
            document = self._get(str(target.digest), accept(target))
            if document is None:
                raise not_found(target.digest, str(self.place))
            yield io.BytesIO(document[1])
        else:
            raw = Download(lambda offset: self._fetch(target, offset), self.session.pause)
            with io.BufferedReader(raw, CHUNK) as content:
                yield cast(BinaryIO, content)

    def put(self, target: Descriptor, content: BinaryIO) -> None:
        """Send ``content``, verified while it is read, unless the repository holds it."""
        if target.media_type in DOCUMENTS:
            check_size(target)
            self._put_document(target, b"".join(verified(content, target)))
        elif target.digest in self._absent or not self.exists(target):
            self._put_blob(target, content)

    def resolve(self, name: str) -> Descriptor:
        """Return what the tag or digest ``name`` points at; its bytes are read and checked."""
        found = self._get(name, {"Accept": ACCEPT})
        if found is None:
            raise NotFound(f"{self.place} has no tag {name!r}", hint="check repository and tag")
        return found[0]

    def tag(self, target: Descriptor, name: str) -> None:
        """Point ``name`` at a manifest the repository holds."""
        self._put_document(target, read(self, target), name)

    def tags(self) -> Mapping[str, Descriptor]:
        """Return every tag and what it points at; a request for each, so prefer :meth:`names`."""
        return {name: self.resolve(name) for name in self.names()}

    def names(self) -> tuple[str, ...]:
        """Return every tag, in order; a repository that does not exist has none."""
        found: list[str] = []
        url = f"{self.session.root}tags/list"
        for _ in range(_MAX_PAGES):
            request = Request(method="GET", url=url)
            with self.session.send(request) as response:
                if response.status == 404:
                    break
                if response.status != 200:
                    raise self.session.failure(request, response)
                listed = parse(response.read(), f"{self.place} tags").get("tags")
                found += listed.texts() if listed else ()
                url = _next_page(request, response)
            if not url:
                break
        return tuple(sorted(set(found)))

    def mount(self, target: Descriptor, source: Reference) -> bool:
        """Have the registry take ``target`` from its repository ``source``; no content is sent.

        If it cannot, :meth:`put` uses the upload that it opened instead.
        """
        if source.registry != self.place.registry or source.repository == self.place.repository:
            return False
        query = urlencode({"mount": str(target.digest), "from": source.repository})
        request = Request(method="POST", url=f"{self.session.uploads}?{query}")
        with self.session.send(request, also=f"repository:{source.repository}:pull") as response:
            if response.status == 201:
                return True
            if response.status == 202:
                self._opened[target.digest] = location(request, response)
                return False
            if response.status in {400, 401, 403, 404, 405}:
                return False
            raise self.session.failure(request, response)

    def referrers(self, target: Descriptor, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return the artifacts whose subject is ``target``; none if the registry refuses to list.

        They come from the referrers API, or without one from the fallback tag.
        """
        request = Request(method="GET", url=f"{self.session.root}referrers/{target.digest}")
        try:
            with self.session.send(request) as response:
                if response.status == 200:
                    index = response.read()
                elif response.status in {404, 405}:
                    held, index = self._get_fallback(target) or (None, b"")
                    if held is None or held.media_type not in media.INDEXES:
                        return ()
                else:
                    return ()
        except StatusError:
            return ()
        listed = Index(index).entries
        return tuple(each for each in listed if artifact_type in {"", each.artifact_type})

    def attach(
        self, source: Readable, referrer: Descriptor, subject: Descriptor, *, new: bool = False
    ) -> None:
        """Send ``referrer``, whose subject is ``subject``, with its parts, and have it listed.

        A registry with the referrers API lists it, and confirms that. In any other, the index
        under the fallback tag gets one entry more. Raises
        :class:`~mlpack.stores.store.ReferrersUnsupported`, and what sending raises.
        """
        if not new and self.exists(referrer) and referrer in self.referrers(subject):
            return
        content = read(source, referrer)
        with _unsupported():
            for part in parts(content, referrer.media_type):
                self.put(part, io.BytesIO(read(source, part)))
            if self._put_document(referrer, content):
                return
        tag = fallback_tag(subject)
        index = with_referrer(self._get_fallback(subject), referrer, content, tag)
        if index is not None:
            with _unsupported():
                self._put_document(Descriptor.of(index, media.INDEX), index, tag)

    def _get_fallback(self, subject: Descriptor) -> tuple[Descriptor, bytes] | None:
        return self._get(fallback_tag(subject), {"Accept": ACCEPT})

    def _get(self, name: str, headers: Mapping[str, str]) -> tuple[Descriptor, bytes] | None:
        """Read a manifest by tag or digest; its bytes must match the registry's digest."""
        url = f"{self.session.root}manifests/{name}"
        request = Request(method="GET", url=url, headers=headers)
        with self.session.send(request) as response:
            if response.status == 404:
                return None
            if response.status != 200:
                raise self.session.failure(request, response)
            content = response.read()
            media_type = _media_type(response, content, f"{self.place}:{name}")
        found = Descriptor.of(content, media_type)
        claimed = {response.headers.get("docker-content-digest", "")} - {""}
        if name.startswith("sha256:"):
            claimed.add(name)
        for digest in claimed:
            if digest.startswith("sha256:") and digest != str(found.digest):
                raise Corrupt(f"{request}: the registry claims {digest} and sent {found.digest}")
        self._documents[found.digest] = content
        return found, content

    def _fetch(self, target: Descriptor, offset: int) -> Response:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        request = Request(method="GET", url=self.session.url(target), headers=headers)
        response = self.session.send(request)
        if response.status in {200, 206}:
            return response
        with response:
            if response.status == 404:
                raise not_found(target.digest, str(self.place))
            raise self.session.failure(request, response)

    def _put_document(self, target: Descriptor, content: bytes, name: str = "") -> bool:
        """Send a manifest, and tag it; return whether the registry lists it for its subject."""
        request = Request(
            method="PUT",
            url=f"{self.session.root}manifests/{name or target.digest}",
            headers={"Content-Type": target.media_type},
            body=content,
        )
        with self.session.send(request) as response:
            if response.status not in {200, 201, 202}:
                raise self.session.failure(request, response)
            stored = response.headers.get("docker-content-digest", str(target.digest))
            listed = "oci-subject" in response.headers
        if stored.startswith("sha256:") and stored != str(target.digest):
            raise Corrupt(f"{request}: the registry stored it as {stored}, not {target.digest}")
        self._documents[target.digest] = content
        return listed

    def _put_blob(self, target: Descriptor, content: BinaryIO) -> None:
        source = VerifyingReader(content, target)
        for left in reversed(range(_RESTARTS)):
            upload = BlobUpload(self.session, target, source, self._opened.pop(target.digest, ""))
            try:
                upload.send()
                break
            except (UploadLost, UploadCorrupted):
                # The upload is lost or damaged: begin again.
                if not left:
                    raise
            finally:
                upload.cancel()
        self._absent.discard(target.digest)


@contextmanager
def _unsupported() -> Iterator[None]:
    try:
        yield
    except StatusError as error:
        if error.status in UNSUPPORTED:
            raise ReferrersUnsupported(str(error)) from error
        raise


def _media_type(response: Response, content: bytes, where: str) -> str:
    """Return the type that the document declares, else the one that the registry declares."""
    inside = parse(content, where).get("mediaType")
    declared = response.headers.get("content-type", "").partition(";")[0].strip()
    media_type = inside.text() if inside else declared
    if media_type not in DOCUMENTS:
        raise RegistryError(
            f"{where} is {media_type or 'of no type'}, not an image",
            hint="schema 1 images of Docker before 1.10 must be pushed again by a newer Docker",
        )
    return media_type


def _next_page(request: Request, response: Response) -> str:
    found = re.search(r"<([^>]*)>\s*;\s*rel=\"?next\"?", response.headers.get("link", ""))
    url = urljoin(request.url, found[1]) if found else ""
    return url if url and origin(url) == origin(request.url) and url != request.url else ""


class Registries:
    """Opens repositories; closes every connection at the end."""

    def __init__(self, client: Client | None = None, configs: tuple[Path, ...] = ()) -> None:
        self._client = client or Client()
        self._configs = configs
        self._sessions: dict[str, RegistrySession] = {}

    def __enter__(self) -> Registries:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def traffic(self) -> Traffic:
        """What was sent to and received from registries."""
        return self._client.traffic

    def store(self, place: Reference, *, push: bool = False) -> RegistryStore:
        """Open the repository of ``place``; only ``push`` requests the right to write."""
        return RegistryStore(self.session(place.registry), place, push=push)

    def session(self, registry: str) -> RegistrySession:
        """Return the one session with ``registry``."""
        if registry not in self._sessions:
            host = host_of(registry)
            login = LoginState(
                origin(f"{self._scheme(host)}://{host}"),
                cache(partial(find_credentials, self._configs, registry)),
            )
            self._sessions[registry] = RegistrySession(self._client, login)
        return self._sessions[registry]

    def _scheme(self, host: str) -> str:
        """Whether a registry that may omit TLS does; nothing secret is in the request."""
        if not self._client.may_be_plain(urlsplit(f"//{host}").hostname or "", host):
            return "https"
        try:
            request = Request(method="GET", url=f"http://{host}/v2/", again=False)
            with self._client.send(request) as response:
                # A TLS server written in Go answers 400 to plain HTTP; others hang up.
                return "https" if response.status == 400 else "http"
        except Unreachable as plain:
            secure = Request(method="GET", url=f"https://{host}/v2/", again=False)
            try:
                self._client.send(secure).close()
            except Unreachable:
                raise plain from None
            return "https"
