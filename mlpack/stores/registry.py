"""One repository of a registry as a store (OCI distribution-spec 1.1)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO, Protocol, cast
from urllib.parse import urlencode, urljoin

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Digest
from mlpack.oci.document import MAX_DOCUMENT_BYTES, parse
from mlpack.oci.index import Index
from mlpack.oci.reference import Reference
from mlpack.stores.base import CHUNK, Corrupt, NotFound, absent, verified
from mlpack.stores.checked import Checked
from mlpack.stores.download import Download
from mlpack.stores.exchange import Refused, RegistryError, Request, Response, origin
from mlpack.stores.upload import Garbled, Upload, UploadLost, location

DOCUMENTS = media.MANIFESTS | media.INDEXES
"""Media types that go to a registry's manifests; everything else is a blob."""

_ACCEPT = ", ".join((media.INDEX, media.MANIFEST, media.DOCKER_INDEX, media.DOCKER_MANIFEST))
_RESTARTS = 3
_MAX_PAGES = 1000


class Session(Protocol):
    """What a repository needs of its registry."""

    @property
    def root(self) -> str:
        """The address of the registry's API."""
        ...

    def send(self, request: Request, scope: str) -> Response:
        """Send, logged in."""
        ...

    def failure(self, request: Request, response: Response) -> Refused:
        """The error for an answer that says no."""
        ...

    def pause(self, failures: int, response: Response | None = None) -> None:
        """Wait before another attempt."""
        ...


class RegistryStore:
    """Manifests, blobs and tags of one repository; from any number of threads.

    Manifests seen are kept in memory, each at most 4 MiB: they are asked for, tagged
    and read again, and a device link may be what they come over.
    """

    def __init__(self, session: Session, place: Reference, *, push: bool = False) -> None:
        self.place = replace(place, tag="", digest=None)
        self._session = session
        self._root = f"{session.root}{place.repository}/"
        self._scope = f"repository:{place.repository}:{'pull,push' if push else 'pull'}"
        self._documents: dict[Digest, bytes] = {}
        self._absent: set[Digest] = set()
        self._opened: dict[Digest, str] = {}

    @property
    def uploads(self) -> str:
        """Where uploads begin."""
        return f"{self._root}blobs/uploads/"

    def send(self, request: Request) -> Response:
        """Send with the rights this repository was opened for."""
        return self._session.send(request, self._scope)

    def failure(self, request: Request, response: Response) -> Refused:
        """The error for an answer that says no."""
        return self._session.failure(request, response)

    def pause(self, failures: int, response: Response | None = None) -> None:
        """Wait before another attempt."""
        self._session.pause(failures, response)

    def exists(self, target: Descriptor) -> bool:
        """Whether the repository has ``target``; one request."""
        request = Request(method="HEAD", url=self._url(target), headers=_accept(target))
        with self.send(request) as response:
            if response.status == 404:
                self._absent.add(target.digest)
                return False
            if response.status != 200:
                raise self.failure(request, response)
            size = response.headers.get("content-length", "")
            return not size.isdecimal() or int(size) == target.size

    @contextmanager
    def open(self, target: Descriptor) -> Iterator[BinaryIO]:
        """Open ``target`` unverified; a download that breaks is taken up where it broke."""
        if target.digest in self._documents:
            yield io.BytesIO(self._documents[target.digest])
        elif target.media_type in DOCUMENTS:
            document = self._get(str(target.digest), _accept(target))
            if document is None:
                raise absent(target.digest, str(self.place))
            yield io.BytesIO(document[1])
        else:
            raw = Download(lambda offset: self._fetch(target, offset), self.pause)
            with io.BufferedReader(raw, CHUNK) as content:
                yield cast(BinaryIO, content)

    def put(self, target: Descriptor, content: BinaryIO) -> None:
        """Send ``content``, verified on the way, unless the repository has it."""
        if target.media_type in DOCUMENTS:
            self.put_document(target, _document(content, target))
        elif target.digest in self._absent or not self.exists(target):
            self._put_blob(target, content)

    def resolve(self, name: str) -> Descriptor:
        """What the tag, or the digest, ``name`` is; the bytes are read and checked."""
        found = self._get(name, {"Accept": _ACCEPT})
        if found is None:
            raise NotFound(f"{self.place} has no tag {name!r}", hint="check repository and tag")
        return found[0]

    def tag(self, target: Descriptor, name: str) -> None:
        """Point ``name`` at a manifest the repository has."""
        with self.open(target) as content:
            document = _document(content, target)
        self.put_document(target, document, name)

    def tags(self) -> Mapping[str, Descriptor]:
        """Every tag and what it points at; a request for each, so prefer :meth:`names`."""
        return {name: self.resolve(name) for name in self.names()}

    def names(self) -> tuple[str, ...]:
        """Every tag, in order; a repository that does not exist has none."""
        found: list[str] = []
        url = f"{self._root}tags/list"
        for _ in range(_MAX_PAGES):
            request = Request(method="GET", url=url)
            with self.send(request) as response:
                if response.status == 404:
                    break
                if response.status != 200:
                    raise self.failure(request, response)
                listed = parse(response.read(), f"{self.place} tags").get("tags")
                found += listed.texts() if listed else ()
                url = _next_page(request, response)
            if not url:
                break
        return tuple(sorted(set(found)))

    def mount(self, target: Descriptor, repository: str) -> bool:
        """Have the registry take ``target`` from another of its repositories; no byte moves.

        Where it does not, ``False``, and the upload it opened instead is used by :meth:`put`.
        """
        query = urlencode({"mount": str(target.digest), "from": repository})
        request = Request(method="POST", url=f"{self.uploads}?{query}")
        with self._session.send(request, f"{self._scope} repository:{repository}:pull") as response:
            if response.status == 201:
                return True
            if response.status == 202:
                self._opened[target.digest] = location(request, response)
                return False
            if response.status in {400, 401, 403, 404, 405}:
                return False
            raise self.failure(request, response)

    def referrers(self, target: Descriptor, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """The artifacts that name ``target`` as their subject.

        Asked of the referrers API, or read from the fallback tag where a registry has none.
        """
        request = Request(method="GET", url=f"{self._root}referrers/{target.digest}")
        with self.send(request) as response:
            if response.status == 200:
                index = response.read()
            elif response.status in {404, 405}:
                held, index = self.referrers_tag(target) or (None, b"")
                if held is None or held.media_type not in media.INDEXES:
                    return ()
            else:
                raise self.failure(request, response)
        listed = Index(index).manifests
        return tuple(each for each in listed if artifact_type in {"", each.artifact_type})

    def referrers_tag(self, target: Descriptor) -> tuple[Descriptor, bytes] | None:
        """What has the fallback tag: an index clients keep where a registry lists nothing."""
        return self._get(fallback_tag(target), {"Accept": _ACCEPT})

    def _get(self, name: str, headers: Mapping[str, str]) -> tuple[Descriptor, bytes] | None:
        """A manifest by tag or digest, its bytes checked against what the registry says."""
        request = Request(method="GET", url=f"{self._root}manifests/{name}", headers=headers)
        with self.send(request) as response:
            if response.status == 404:
                return None
            if response.status != 200:
                raise self.failure(request, response)
            content = response.read()
            media_type = _media_type(response, content, f"{self.place}:{name}")
        found = Descriptor.of(content, media_type)
        claimed = {response.headers.get("docker-content-digest", "")} - {""}
        if name.startswith("sha256:"):
            claimed.add(name)
        for digest in claimed:
            if digest.startswith("sha256:") and digest != str(found.digest):
                raise Corrupt(f"{request}: the registry says {digest} and sent {found.digest}")
        self._documents[found.digest] = content
        return found, content

    def _fetch(self, target: Descriptor, offset: int) -> Response:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        request = Request(method="GET", url=self._url(target), headers=headers)
        response = self.send(request)
        if response.status in {200, 206}:
            return response
        with response:
            if response.status == 404:
                raise absent(target.digest, str(self.place))
            raise self.failure(request, response)

    def put_document(self, target: Descriptor, content: bytes, name: str = "") -> bool:
        """Send a manifest, and name it; whether the registry lists it for its subject itself."""
        request = Request(
            method="PUT",
            url=f"{self._root}manifests/{name or target.digest}",
            headers={"Content-Type": target.media_type},
            body=content,
        )
        with self.send(request) as response:
            if response.status not in {200, 201, 202}:
                raise self.failure(request, response)
            said = response.headers.get("docker-content-digest", str(target.digest))
            listed = "oci-subject" in response.headers
        if said.startswith("sha256:") and said != str(target.digest):
            raise Corrupt(f"{request}: the registry stored it as {said}, not {target.digest}")
        self._documents[target.digest] = content
        return listed

    def _put_blob(self, target: Descriptor, content: BinaryIO) -> None:
        source = Checked(content, target, Corrupt(f"{target.digest} holds other bytes"))
        for left in reversed(range(_RESTARTS)):
            upload = Upload(self, target, source, self._opened.pop(target.digest, ""))
            try:
                upload.send()
                break
            except (UploadLost, Garbled):
                # The session is gone, or spoilt: from the beginning.
                if not left:
                    raise
            finally:
                upload.cancel()
        self._absent.discard(target.digest)

    def _url(self, target: Descriptor) -> str:
        kind = "manifests" if target.media_type in DOCUMENTS else "blobs"
        return f"{self._root}{kind}/{target.digest}"


def fallback_tag(subject: Descriptor) -> str:
    """What an index of ``subject``'s referrers is called (distribution-spec, *Referrers tag*).

    >>> fallback_tag(Descriptor.of(b"", media.MANIFEST))[:20]
    'sha256-e3b0c44298fc1'
    """
    return f"sha256-{subject.digest.hex}"


def _accept(target: Descriptor) -> dict[str, str]:
    return {"Accept": target.media_type} if target.media_type in DOCUMENTS else {}


def _document(content: BinaryIO, target: Descriptor) -> bytes:
    if target.size > MAX_DOCUMENT_BYTES:
        raise Corrupt(f"{target.digest} is {target.size} bytes, more than {MAX_DOCUMENT_BYTES}")
    return b"".join(verified(content, target))


def _media_type(response: Response, content: bytes, where: str) -> str:
    """What the document says it is, else what the registry says."""
    inside = parse(content, where).get("mediaType")
    said = response.headers.get("content-type", "").partition(";")[0].strip()
    media_type = inside.text() if inside else said
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
