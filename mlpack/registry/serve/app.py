"""The registry as an ASGI application, with the requests of the OCI distribution spec 1.1.

Pull, push, resumable and mounted uploads, tags, referrers. Blobs are streamed in both directions,
and hashed and verified when they are pushed. Tags are deleted only if that is allowed, blobs never.
Access is for one user with a password (RFC 7617), or every program of this machine.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hmac
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import MAX_DOCUMENT_BYTES, Descriptor, Digest
from mlpack.registry.http_types import is_loopback
from mlpack.registry.serve.catalog import (
    ApiError,
    Catalog,
    check_digest,
    check_repository,
    check_tag,
)
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import CHUNK, Corrupt, StagedBlob

CHALLENGE = {"www-authenticate": 'Basic realm="mlpack"'}


def error_response(error: ApiError) -> Response:
    """Return the response for an error, as the distribution specification defines it."""
    return JSONResponse(error.to_json(), error.status, headers=error.headers)


class AccessControl:
    """Middleware that answers the requests that ``check`` refuses, and passes all others."""

    def __init__(self, app: ASGIApp, check: Callable[[Headers], ApiError | None]) -> None:
        self._app = app
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        error = self._check(Headers(scope=scope)) if scope["type"] == "http" else None
        await (error_response(error) if error else self._app)(scope, receive, send)


@dataclass(frozen=True)
class BasicLogin:
    """The name and password of the one user."""

    user: str
    password: str = field(repr=False)

    def check(self, headers: Headers) -> ApiError | None:
        """Refuse requests without the login."""
        if self._matches(headers.get("authorization", "")):
            return None
        return ApiError("UNAUTHORIZED", "this registry requires a user and password", CHALLENGE)

    def _matches(self, authorization: str) -> bool:
        """Whether the header has the user and password; compared in constant time."""
        scheme, _, sent = authorization.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            given = base64.b64decode(sent, validate=True)
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(given, f"{self.user}:{self.password}".encode())


def local_programs_only(headers: Headers) -> ApiError | None:
    """Refuse requests of web pages.

    A registry without a user listens on the loopback address, which every browser of the machine
    can reach. A page whose name resolves to it (DNS rebinding) sends that name as ``Host``, and a
    page of another origin that writes sends ``Origin``, which no container engine does. With a
    user, pages lack the password.
    """
    if is_loopback(_host(headers)) and "origin" not in headers:
        return None
    return ApiError(
        "DENIED",
        "without a user this registry answers programs of this machine only; "
        "address it as localhost or 127.0.0.1, or start it with --user",
    )


def _host(headers: Headers) -> str:
    """Return the name in ``Host``, without its port."""
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


MAX_OPEN = 100
"""Uploads in progress; one more discards the oldest idle one."""


@dataclass(eq=False)
class UploadSession:
    """One blob so far. A client whose connection broke continues at ``size``."""

    name: str
    out: StagedBlob
    open: ExitStack
    size: int = 0
    busy: bool = False

    def write(self, data: bytes) -> None:
        """Write the next bytes."""
        self.out.write(data)
        self.size += len(data)


class UploadSessions:
    """The uploads of one server; they end with it, and clients then begin again."""

    def __init__(self, layout: LayoutStore) -> None:
        self._layout = layout
        self._open: dict[str, UploadSession] = {}

    def begin(self) -> UploadSession:
        """Open an upload for one blob."""
        if len(self._open) >= MAX_OPEN:
            idle = next((each for each in self._open.values() if not each.busy), None)
            if idle is None:
                raise ApiError("TOOMANYREQUESTS", f"{MAX_OPEN} uploads are in progress")
            self.discard(idle)
        stack = ExitStack()
        out = stack.enter_context(self._layout.stage())
        upload = UploadSession(secrets.token_hex(16), out, stack)
        self._open[upload.name] = upload
        return upload

    def find(self, name: str) -> UploadSession:
        """Return the upload called ``name``; raise :class:`ApiError`."""
        if name not in self._open:
            raise ApiError("BLOB_UPLOAD_UNKNOWN", "there is no such upload; begin it again")
        return self._open[name]

    def finish(self, upload: UploadSession, digest: Digest) -> None:
        """Keep the blob if it is ``digest``; either way the upload ends."""
        try:
            upload.out.commit(Descriptor("application/octet-stream", digest, upload.size))
        except Corrupt as error:
            raise ApiError("DIGEST_INVALID", f"what was sent is not {digest}") from error
        finally:
            self.discard(upload)

    def discard(self, upload: UploadSession) -> None:
        """End an upload; what was not kept is deleted."""
        self._open.pop(upload.name, None)
        upload.open.close()

    def close(self) -> None:
        """End all uploads."""
        for upload in list(self._open.values()):
            self.discard(upload)


_RANGE = re.compile(r"(?:bytes )?([0-9]{1,18})-([0-9]{1,18})(?:/.*)?")
VERSION = {"docker-distribution-api-version": "registry/2.0"}


def create_app(
    layout: LayoutStore,
    *,
    login: BasicLogin | None = None,
    writable: bool = True,
    deletable: bool = False,
    guarded: bool = False,
) -> Starlette:
    """Return a registry over ``layout``; without ``login`` everyone may use it.

    ``guarded`` if only programs of this machine may.
    """
    registry = _Registry(layout, writable, deletable)
    checks = [*([local_programs_only] if guarded else []), *([login.check] if login else [])]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        registry.uploads.close()

    return Starlette(
        routes=registry.routes(),
        middleware=[Middleware(AccessControl, check=each) for each in checks],
        exception_handlers={
            ApiError: _api_error,
            HTTPException: _unknown_request,
            ClientDisconnect: _disconnected,
            OSError: _disk_error,
        },
        lifespan=lifespan,
    )


class _Registry:
    def __init__(self, layout: LayoutStore, writable: bool, deletable: bool) -> None:
        self.catalog = Catalog(layout)
        self.uploads = UploadSessions(layout)
        self.writable = writable
        self.deletable = deletable

    def routes(self) -> list[Route]:
        name = "/v2/{name:path}"
        manifest, upload = f"{name}/manifests/{{reference}}", f"{name}/blobs/uploads/{{upload}}"
        requests = (
            ("GET", "/v2/", self.ping),
            ("GET", "/v2/_catalog", self.list_repositories),
            ("GET", f"{name}/tags/list", self.list_tags),
            ("GET", f"{name}/referrers/{{digest}}", self.list_referrers),
            ("GET", manifest, self.get_manifest),
            ("PUT", manifest, self.put_manifest),
            ("DELETE", manifest, self.delete_manifest),
            ("POST", f"{name}/blobs/uploads/", self.begin_upload),
            ("GET", upload, self.show_upload),
            ("PATCH", upload, self.add_to_upload),
            ("PUT", upload, self.end_upload),
            ("DELETE", upload, self.drop_upload),
            ("GET", f"{name}/blobs/{{digest}}", self.get_blob),
        )
        return [Route(path, handle, methods=[method]) for method, path, handle in requests]

    def ping(self, _: Request) -> Response:
        return JSONResponse({}, headers=VERSION)

    def list_repositories(self, request: Request) -> Response:
        names, more = _page(request, self.catalog.repositories())
        return JSONResponse({"repositories": names}, headers=more)

    def list_tags(self, request: Request) -> Response:
        name = check_repository(request.path_params["name"])
        tags, more = _page(request, sorted(self.catalog.tags(name)))
        return JSONResponse({"name": name, "tags": tags}, headers=more)

    def list_referrers(self, request: Request) -> Response:
        check_repository(request.path_params["name"])
        found = list(self.catalog.referrers(request.path_params["digest"]))
        kind, headers = request.query_params.get("artifactType"), {}
        if kind:
            found = [each for each in found if each.artifact_type == kind]
            headers = {"oci-filters-applied": "artifactType"}
        listed = [each.to_json() for each in found]
        index = {"schemaVersion": 2, "mediaType": media.INDEX, "manifests": listed}
        return JSONResponse(index, headers=headers, media_type=media.INDEX)

    def get_manifest(self, request: Request) -> Response:
        name = check_repository(request.path_params["name"])
        reference = check_tag(name, request.path_params["reference"])
        return self._file(self.catalog.manifest(name, reference))

    def get_blob(self, request: Request) -> Response:
        check_repository(request.path_params["name"])
        return self._file(self.catalog.blob(request.path_params["digest"]))

    def _file(self, target: Descriptor) -> Response:
        path, digest = self.catalog.layout.path(target), str(target.digest)
        if not path.is_file():
            raise ApiError("BLOB_UNKNOWN", f"{digest} is tagged, but is no longer in the store")
        headers = {"docker-content-digest": digest, "etag": f'"{digest}"'}
        answer = FileResponse(
            path, headers=headers, media_type=target.media_type, stat_result=path.stat()
        )
        # 46 bytes that a device would pay for, and of no use for content addressed by digest.
        del answer.headers["last-modified"]
        return answer

    async def put_manifest(self, request: Request) -> Response:
        name = self._writes_to(request)
        reference = check_tag(name, request.path_params["reference"])
        content = bytearray()
        async for piece in request.stream():
            content += piece
            if len(content) > MAX_DOCUMENT_BYTES:
                raise ApiError("SIZE_INVALID", f"a manifest is at most {MAX_DOCUMENT_BYTES} bytes")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        target = await run_in_threadpool(self.catalog.keep, name, reference, bytes(content), kind)
        headers = _created(f"/v2/{name}/manifests/{target.digest}", target.digest)
        subject = await run_in_threadpool(self._subject, target)
        return Response(status_code=201, headers={**headers, **subject})

    def delete_manifest(self, request: Request) -> Response:
        name = self._writes_to(request)
        if not self.deletable:
            raise ApiError("UNSUPPORTED", "this registry deletes nothing")
        reference = check_tag(name, request.path_params["reference"])
        self.catalog.delete(name, reference)
        return Response(status_code=202)

    def _subject(self, target: Descriptor) -> dict[str, str]:
        subject = self.catalog.subject(target)
        return {"oci-subject": str(subject)} if subject else {}

    async def begin_upload(self, request: Request) -> Response:
        name = self._writes_to(request)
        mounted = request.query_params.get("mount", "")
        if mounted and self._has(mounted):
            digest = check_digest(mounted)
            return Response(status_code=201, headers=_created(f"/v2/{name}/blobs/{digest}", digest))
        upload = self.uploads.begin()
        if "digest" in request.query_params:
            return await self._finish(request, name, upload)
        return _so_far(name, upload, 202)

    def _has(self, digest: str) -> bool:
        try:
            self.catalog.blob(digest)
        except ApiError:
            return False
        return True

    async def show_upload(self, request: Request) -> Response:
        name = self._writes_to(request)
        return _so_far(name, self.uploads.find(request.path_params["upload"]), 204)

    async def add_to_upload(self, request: Request) -> Response:
        name = self._writes_to(request)
        upload = self.uploads.find(request.path_params["upload"])
        await self._receive(request, name, upload)
        return _so_far(name, upload, 202)

    async def end_upload(self, request: Request) -> Response:
        name = self._writes_to(request)
        return await self._finish(request, name, self.uploads.find(request.path_params["upload"]))

    async def drop_upload(self, request: Request) -> Response:
        self._writes_to(request)
        upload = self.uploads.find(request.path_params["upload"])
        if upload.busy:
            raise ApiError("BLOB_UPLOAD_INVALID", "this upload is being written to")
        self.uploads.discard(upload)
        return Response(status_code=204)

    async def _finish(self, request: Request, name: str, upload: UploadSession) -> Response:
        digest = check_digest(request.query_params.get("digest", ""))
        await self._receive(request, name, upload)
        await run_in_threadpool(self.uploads.finish, upload, digest)
        return Response(status_code=201, headers=_created(f"/v2/{name}/blobs/{digest}", digest))

    async def _receive(self, request: Request, name: str, upload: UploadSession) -> None:
        """Write the body to the upload; what arrived before a cut stays, for the client to resume.

        A piece that does not start at the upload's size is refused (distribution-spec, *Pushing a
        blob in chunks*).
        """
        _check_start(request, name, upload)
        upload.busy = True
        waiting = bytearray()
        try:
            async for piece in request.stream():
                waiting += piece
                if len(waiting) >= CHUNK:
                    await run_in_threadpool(upload.write, bytes(waiting))
                    waiting.clear()
        finally:
            upload.busy = False
            if waiting:
                upload.write(bytes(waiting))

    def _writes_to(self, request: Request) -> str:
        if not self.writable:
            raise ApiError("DENIED", "this registry is read-only")
        return check_repository(request.path_params["name"])


def _check_start(request: Request, name: str, upload: UploadSession) -> None:
    stated = request.headers.get("content-range")
    if not stated and not upload.busy:
        return
    found = _RANGE.fullmatch(stated or "")
    if upload.busy or found is None or int(found[1]) != upload.size:
        headers = _place(name, upload)
        raise ApiError("BLOB_UPLOAD_INVALID", f"the upload has {upload.size} bytes", headers)


def _so_far(name: str, upload: UploadSession, status: int) -> Response:
    return Response(status_code=status, headers=_place(name, upload))


def _place(name: str, upload: UploadSession) -> dict[str, str]:
    return {
        "location": f"/v2/{name}/blobs/uploads/{upload.name}",
        # An empty upload has 0-0 too: the specification has no empty range.
        "range": f"0-{max(0, upload.size - 1)}",
        "docker-upload-uuid": upload.name,
    }


def _created(location: str, digest: Digest) -> dict[str, str]:
    return {"location": location, "docker-content-digest": str(digest)}


_DIGITS = 18


def _page(request: Request, names: list[str]) -> tuple[list[str], Mapping[str, str]]:
    """Return the requested part of ``names``, and a link to what follows."""
    last, count = request.query_params.get("last", ""), request.query_params.get("n", "")
    left = [name for name in names if name > last]
    # More digits than any list is long; Python refuses to read thousands of them.
    if not count.isdecimal() or len(count) > _DIGITS or len(left) <= int(count):
        return left, {}
    shown = left[: int(count)]
    if not shown:
        return [], {}  # what follows nothing would be the same page again
    follows = request.url.include_query_params(last=shown[-1])
    return shown, {"link": f'<{follows.path}?{follows.query}>; rel="next"'}


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101  # registered for nothing else
    return error_response(error)


async def _disconnected(_: Request, __: Exception) -> Response:
    """Answer a client that closed the connection during its request; nobody receives it."""
    return Response(status_code=400)


async def _disk_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)  # noqa: S101  # registered for nothing else
    details = {"code": "UNKNOWN", "message": f"the store: {error.strerror}"}
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return JSONResponse({"errors": [details]}, 507 if full else 500)


async def _unknown_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for nothing else
    unknown = ApiError("UNSUPPORTED", "the distribution specification has no such request here")
    return JSONResponse(unknown.to_json(), error.status_code, headers=error.headers)
