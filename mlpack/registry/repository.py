"""The repositories of registries as stores (OCI distribution-spec 1.1).

One client and one login per registry serve all of them. Registries without the referrers API have
an index of referrers that clients keep (*Referrers tag schema*).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import BinaryIO, cast
from urllib.parse import urlencode, urlsplit, urlunsplit

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest, InvalidContent, Reference, parse
from mlpack.oci.image import Index
from mlpack.oci.reference import host_of
from mlpack.registry.answers import beginning, not_a_registry, require_no_web_page, web_page
from mlpack.registry.auth import LoginState
from mlpack.registry.counting_transport import Traffic
from mlpack.registry.credentials import Logins
from mlpack.registry.download import Download, starts_at
from mlpack.registry.http import Client
from mlpack.registry.http_types import (
    RegistryError,
    Request,
    Response,
    Unreachable,
    address,
    origin,
)
from mlpack.registry.referrers import (
    fallback_tag,
    refusals_as_unsupported,
    with_referrer,
)
from mlpack.registry.session import (
    ACCEPT,
    RegistrySession,
    RepositorySession,
    accept,
    digest_of,
)
from mlpack.registry.upload import BlobUpload, UploadCorrupted, UploadLost, location
from mlpack.stores.store import (
    CHUNK,
    DOCUMENTS,
    Corrupt,
    NotFound,
    Readable,
    VerifyingReader,
    check_size,
    not_found,
    parts,
    read,
    verified,
)

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
        self._refused: set[str] = set()

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
        """Return every tag and what it points at; a request for each, so prefer :meth:`names`.

        A tag that is deleted meanwhile is left out.
        """
        found = {}
        for name in self.names():
            with suppress(NotFound):
                found[name] = self.resolve(name)
        return found

    def names(self) -> tuple[str, ...]:
        """Return every tag, in order; a repository that does not exist has none."""
        found: set[str] = set()
        request = Request(method="GET", url=f"{self.session.root}tags/list")
        for response in self._pages(request):
            if response.status == 404:
                break
            if response.status != 200:
                raise self.session.failure(request, response)
            content = response.read()
            try:
                listed = parse(content, f"{self.place} tags").get("tags")
                found.update(listed.texts() if listed else ())
            except InvalidContent as error:
                raise not_a_registry(
                    request, response, content, f"no list of tags ({error.problem})"
                ) from error
        return tuple(sorted(found))

    def _pages(self, request: Request) -> Iterator[Response]:
        """Yield the pages of a list; one whose pages lead back to each other ends."""
        seen: set[str] = set()
        while request.url and request.url not in seen and len(seen) < _MAX_PAGES:
            seen.add(request.url)
            with self.session.send(request) as response:
                yield response
                request = replace(request, url=_next_page(request, response))

    def mount(self, target: Descriptor, source: Reference) -> bool:
        """Have the registry take ``target`` from its repository ``source``; no content is sent.

        If it cannot, whatever it says, :meth:`put` uploads; to the upload that it opened, if any.
        A registry that refuses a repository is not asked for its other blobs.
        """
        if source.registry != self.place.registry or source.repository == self.place.repository:
            return False
        if source.repository in self._refused:
            return False
        query = urlencode({"mount": str(target.digest), "from": source.repository})
        # A second attempt for a connection that was lost: an upload costs more. Then it goes on.
        request = Request(method="POST", url=f"{self.session.uploads}?{query}", attempts=2)
        try:
            with self.session.send(
                request, also=f"repository:{source.repository}:pull"
            ) as response:
                named = response.headers.get("location", ""), digest_of(response)
                if response.status == 201:
                    mounted = any(target.digest.hex in each for each in named)
                    return mounted or self.exists(target)
                if response.status == 202:
                    opened = location(request, response)
                    # An upload elsewhere is opened again, without the rights to the other.
                    if origin(opened) == origin(request.url):
                        self._opened[target.digest] = opened
                    return False
                if response.status == 404:
                    return False
        except (RegistryError, Corrupt):
            pass
        self._refused.add(source.repository)
        return False

    def referrers(self, target: Descriptor, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return the artifacts whose subject is ``target``; none if the registry lists none.

        They come from the referrers API, or without one from the fallback tag. Any other
        answer counts as none: the image does not depend on it.
        """
        with suppress(RegistryError, InvalidContent, Corrupt):
            listed = self._listed_referrers(target)
            if listed is None:
                held, index = self._get_fallback(target) or (None, b"")
                listed = Index(index).entries if held and held.media_type in media.INDEXES else ()
            return tuple(each for each in listed if artifact_type in {"", each.artifact_type})
        return ()

    def _listed_referrers(self, target: Descriptor) -> tuple[Descriptor, ...] | None:
        """Return what the referrers API lists, or ``None`` if it answers anything else."""
        url = f"{self.session.root}referrers/{target.digest}"
        found: list[Descriptor] = []
        with suppress(RegistryError, InvalidContent, Corrupt):
            for response in self._pages(Request(method="GET", url=url, attempts=2)):
                if response.status != 200:
                    return None
                found += Index(response.read()).entries
            return tuple(found)
        return None

    def attach(
        self, source: Readable, referrer: Descriptor, subject: Descriptor, *, new: bool = False
    ) -> None:
        """Send ``referrer``, whose subject is ``subject``, with its parts, and have it listed.

        A registry with the referrers API lists it, and confirms that. In any other, the index
        under the fallback tag gets one entry more. Raises
        :class:`~mlpack.stores.store.ReferrersUnsupported`, and what sending raises.
        """
        tag = fallback_tag(subject)
        with refusals_as_unsupported():
            if not new and self.exists(referrer) and referrer in self.referrers(subject):
                return
            content = read(source, referrer)
            for part in parts(content, referrer.media_type):
                self.put(part, io.BytesIO(read(source, part)))
            if self._put_document(referrer, content):
                return
            index = with_referrer(self._get_fallback(subject), referrer, content, tag)
            if index is not None:
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
            try:
                media_type = _media_type(response, content, f"{self.place}:{name}")
            except InvalidContent as error:
                raise not_a_registry(
                    request, response, content, f"no manifest ({error.problem})"
                ) from error
        found = Descriptor.of(content, media_type)
        claimed = {digest_of(response), name if name.startswith("sha256:") else ""} - {""}
        for digest in claimed:
            if digest != str(found.digest):
                raise Corrupt(f"{request}: the registry claims {digest} and sent {found.digest}")
        self._documents[found.digest] = content
        return found, content

    def _fetch(self, target: Descriptor, offset: int) -> Response:
        """Request a blob from ``offset`` on; all of it if the registry has no ranges."""
        if offset:
            headers = {"Range": f"bytes={offset}-"}
            request = Request(method="GET", url=self.session.url(target), headers=headers)
            response = self.session.send(request)
            if response.status in {200, 206} and 0 <= starts_at(response) <= offset:
                return response
            response.close()
        request = Request(method="GET", url=self.session.url(target))
        response = self.session.send(request)
        declared = response.headers.get("content-length", "")
        whole = declared == str(target.size) or not web_page(response.headers)
        if response.status in {200, 206} and whole:
            return response
        with response:
            if response.status == 404:
                raise not_found(target.digest, str(self.place))
            if response.status in {200, 206}:
                raise not_a_registry(request, response, beginning(response), "no blob")
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
            require_no_web_page(request, response)
            stored = digest_of(response) or str(target.digest)
            listed = "oci-subject" in response.headers
        if stored != str(target.digest):
            raise Corrupt(f"{request}: the registry stored it as {stored}, not {target.digest}")
        self._documents[target.digest] = content
        return listed

    def _put_blob(self, target: Descriptor, content: BinaryIO) -> None:
        source = VerifyingReader(content, target)
        in_parts = False
        for left in reversed(range(_RESTARTS)):
            opened = self._opened.pop(target.digest, "")
            upload = BlobUpload(self.session, target, source, opened, in_parts=in_parts)
            try:
                upload.send()
                break
            except (UploadLost, UploadCorrupted) as error:
                # The upload is lost or damaged, or was refused as a whole: begin again.
                if not left:
                    raise
                in_parts = in_parts or not isinstance(error, UploadLost) or error.in_parts
            finally:
                upload.cancel()
        self._absent.discard(target.digest)


def _media_type(response: Response, content: bytes, where: str) -> str:
    """Return the type that the document declares, else the one that the registry declares.

    One without either is known by its members (OCI 1.0 does not require a type). Raises
    :class:`InvalidContent` for other content.
    """
    document = parse(content, where)
    inside = document.get("mediaType")
    declared = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if inside is None and declared not in DOCUMENTS and document.get("schemaVersion"):
        if document.need("schemaVersion").value == 2:
            declared = media.INDEX if document.get("manifests") else media.MANIFEST
    elif inside is None and declared not in DOCUMENTS:
        raise InvalidContent(where, "it has neither 'mediaType' nor 'schemaVersion'")
    media_type = inside.text() if inside else declared
    if media_type not in DOCUMENTS:
        raise RegistryError(
            f"{where} is {media_type or 'of no type'}, not an image",
            hint="schema 1 images of Docker before 1.10 must be pushed again by a newer Docker",
        )
    return media_type


def _next_page(request: Request, response: Response) -> str:
    """Return the next page's address at this registry, or ``""``.

    Only its path counts: a registry behind a proxy may know itself by another name.
    """
    found = re.search(
        r"<([^>]*)>[^,<]*;\s*rel\s*=\s*\"?next\b", response.headers.get("link", ""), re.IGNORECASE
    )
    place = address(request.url, found[1]) if found else ""
    if not place:
        return ""
    there, here = urlsplit(place), urlsplit(request.url)
    return urlunsplit((here.scheme, here.netloc, there.path, there.query, ""))


class Registries:
    """Opens repositories; closes every connection at the end."""

    def __init__(self, client: Client | None = None, logins: Logins | None = None) -> None:
        self._client = client or Client()
        self._logins = logins or Logins()
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
                partial(self._logins.find, registry),
            )
            self._sessions[registry] = RegistrySession(self._client, login)
        return self._sessions[registry]

    def _scheme(self, host: str) -> str:
        """Whether a registry that may omit TLS does; nothing secret is in the request."""
        if not self._client.may_be_plain(urlsplit(f"//{host}").hostname or "", host):
            return "https"
        try:
            request = Request(method="GET", url=f"http://{host}/v2/", attempts=1)
            with self._client.send(request) as response:
                ended = urlsplit(response.url)
                # A TLS server written in Go answers 400 to plain HTTP; others hang up, or redirect.
                moved = ended.scheme == "https" and ended.hostname == urlsplit(request.url).hostname
                return "https" if moved or response.status == 400 else "http"
        except Unreachable as plain:
            secure = Request(method="GET", url=f"https://{host}/v2/", attempts=1)
            try:
                self._client.send(secure).close()
            except Unreachable:
                raise plain from None
            return "https"
        except RegistryError:
            # Redirected, perhaps to a login page elsewhere: it speaks HTTP.
            return "http"
