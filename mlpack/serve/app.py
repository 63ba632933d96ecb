"""The registry as an application: the requests of the OCI distribution specification 1.1.

Pull, push, resumable and mounted uploads, tags, referrers. Blobs are streamed in both
directions and verified when they are pushed. Names are deleted only where that is allowed, blobs
never.
"""

from __future__ import annotations

import errno
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Digest, InvalidDigest
from mlpack.oci.document import MAX_DOCUMENT_BYTES
from mlpack.serve.access import BasicAuth, Login, ThisMachine
from mlpack.serve.catalog import Catalog, check_repository, check_tag
from mlpack.serve.errors import Refused
from mlpack.serve.uploads import Upload, Uploads
from mlpack.stores.base import CHUNK
from mlpack.stores.layout import LayoutStore

_RANGE = re.compile(r"(?:bytes )?([0-9]{1,18})-([0-9]{1,18})(?:/.*)?")
VERSION = {"docker-distribution-api-version": "registry/2.0"}


def create_app(
    layout: LayoutStore,
    *,
    login: Login | None = None,
    writable: bool = True,
    deletable: bool = False,
    guarded: bool = False,
) -> Starlette:
    """A registry over ``layout``; without ``login`` everyone may use it.

    ``guarded`` where only programs of this machine may.
    """
    registry = _Registry(layout, writable, deletable)
    guards = [Middleware(BasicAuth, login=login)] if login else []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        registry.uploads.close()

    return Starlette(
        routes=registry.routes(),
        middleware=[Middleware(ThisMachine), *guards] if guarded else guards,
        exception_handlers={
            Refused: _refused,
            HTTPException: _no_such_request,
            ClientDisconnect: _gone,
            OSError: _disk,
        },
        lifespan=lifespan,
    )


class _Registry:
    def __init__(self, layout: LayoutStore, writable: bool, deletable: bool) -> None:
        self.catalog = Catalog(layout)
        self.uploads = Uploads(layout)
        self.writable = writable
        self.deletable = deletable

    def routes(self) -> list[Route]:
        upload = "/v2/{name:path}/blobs/uploads/{upload}"
        return [
            Route("/v2/", self.ping, methods=["GET"]),
            Route("/v2/_catalog", self.list_repositories, methods=["GET"]),
            Route("/v2/{name:path}/tags/list", self.list_tags, methods=["GET"]),
            Route("/v2/{name:path}/referrers/{digest}", self.list_referrers, methods=["GET"]),
            Route("/v2/{name:path}/manifests/{reference}", self.get_manifest, methods=["GET"]),
            Route("/v2/{name:path}/manifests/{reference}", self.put_manifest, methods=["PUT"]),
            Route(
                "/v2/{name:path}/manifests/{reference}", self.delete_manifest, methods=["DELETE"]
            ),
            Route("/v2/{name:path}/blobs/uploads/", self.begin_upload, methods=["POST"]),
            Route(upload, self.show_upload, methods=["GET"]),
            Route(upload, self.add_to_upload, methods=["PATCH"]),
            Route(upload, self.end_upload, methods=["PUT"]),
            Route(upload, self.drop_upload, methods=["DELETE"]),
            Route("/v2/{name:path}/blobs/{digest}", self.get_blob, methods=["GET"]),
        ]

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
            raise Refused("BLOB_UNKNOWN", f"{digest} is named, but is not in the store any more")
        headers = {"docker-content-digest": digest, "etag": f'"{digest}"'}
        answer = FileResponse(
            path, headers=headers, media_type=target.media_type, stat_result=path.stat()
        )
        # 46 bytes that a device would pay for, and that say nothing of content named by digest.
        del answer.headers["last-modified"]
        return answer

    async def put_manifest(self, request: Request) -> Response:
        name = self._writes_to(request)
        reference = check_tag(name, request.path_params["reference"])
        content = bytearray()
        async for piece in request.stream():
            content += piece
            if len(content) > MAX_DOCUMENT_BYTES:
                raise Refused("SIZE_INVALID", f"a manifest is at most {MAX_DOCUMENT_BYTES} bytes")
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        target = await run_in_threadpool(self.catalog.keep, name, reference, bytes(content), kind)
        headers = _created(f"/v2/{name}/manifests/{target.digest}", target.digest)
        subject = await run_in_threadpool(self._subject, target)
        return Response(status_code=201, headers={**headers, **subject})

    def delete_manifest(self, request: Request) -> Response:
        name = self._writes_to(request)
        if not self.deletable:
            raise Refused("UNSUPPORTED", "this registry deletes nothing")
        reference = check_tag(name, request.path_params["reference"])
        self.catalog.forget(name, reference)
        return Response(status_code=202)

    def _subject(self, target: Descriptor) -> dict[str, str]:
        subject = self.catalog.subject(target)
        return {"oci-subject": str(subject)} if subject else {}

    async def begin_upload(self, request: Request) -> Response:
        name = self._writes_to(request)
        mounted = request.query_params.get("mount", "")
        if mounted and self._has(mounted):
            digest = _digest(mounted)
            return Response(status_code=201, headers=_created(f"/v2/{name}/blobs/{digest}", digest))
        upload = self.uploads.begin()
        if "digest" in request.query_params:
            return await self._finish(request, name, upload)
        return _so_far(name, upload, 202)

    def _has(self, digest: str) -> bool:
        try:
            self.catalog.blob(digest)
        except Refused:
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
            raise Refused("BLOB_UPLOAD_INVALID", "this upload is being written to")
        self.uploads.forget(upload)
        return Response(status_code=204)

    async def _finish(self, request: Request, name: str, upload: Upload) -> Response:
        digest = _digest(request.query_params.get("digest", ""))
        await self._receive(request, name, upload)
        await run_in_threadpool(self.uploads.finish, upload, digest)
        return Response(status_code=201, headers=_created(f"/v2/{name}/blobs/{digest}", digest))

    async def _receive(self, request: Request, name: str, upload: Upload) -> None:
        """Write the body to the upload; what arrived before a cut stays, for the client to go on.

        A piece that does not start where the upload stands is refused (distribution-spec,
        *Pushing a blob in chunks*).
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
            raise Refused("DENIED", "this registry is read-only")
        return check_repository(request.path_params["name"])


def _check_start(request: Request, name: str, upload: Upload) -> None:
    stated = request.headers.get("content-range")
    if not stated and not upload.busy:
        return
    found = _RANGE.fullmatch(stated or "")
    if upload.busy or found is None or int(found[1]) != upload.size:
        headers = _place(name, upload)
        raise Refused("BLOB_UPLOAD_INVALID", f"the upload stands at {upload.size}", headers)


def _so_far(name: str, upload: Upload, status: int) -> Response:
    return Response(status_code=status, headers=_place(name, upload))


def _place(name: str, upload: Upload) -> dict[str, str]:
    return {
        "location": f"/v2/{name}/blobs/uploads/{upload.name}",
        # An upload that holds nothing says 0-0 too: the specification has no empty range.
        "range": f"0-{max(0, upload.size - 1)}",
        "docker-upload-uuid": upload.name,
    }


def _created(location: str, digest: Digest) -> dict[str, str]:
    return {"location": location, "docker-content-digest": str(digest)}


def _page(request: Request, names: list[str]) -> tuple[list[str], Mapping[str, str]]:
    """The part of ``names`` asked for, and a link to what follows."""
    last, wanted = request.query_params.get("last", ""), request.query_params.get("n", "")
    left = [name for name in names if name > last]
    if not wanted.isdecimal() or len(left) <= int(wanted):
        return left, {}
    shown = left[: int(wanted)]
    follows = request.url.include_query_params(last=shown[-1] if shown else last)
    return shown, {"link": f'<{follows.path}?{follows.query}>; rel="next"'}


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidDigest as error:
        raise Refused("DIGEST_INVALID", str(error)) from error


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101  # registered for nothing else
    return JSONResponse(error.to_json(), error.status, headers=error.headers)


async def _gone(_: Request, __: Exception) -> Response:
    """Answer a client that went away in the middle of its request; nobody hears it."""
    return Response(status_code=400)


async def _disk(_: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)  # noqa: S101  # registered for nothing else
    words = {"code": "UNKNOWN", "message": f"the store: {error.strerror}"}
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return JSONResponse({"errors": [words]}, 507 if full else 500)


async def _no_such_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for nothing else
    refused = Refused("UNSUPPORTED", "the distribution specification has no such request here")
    return JSONResponse(refused.to_json(), error.status_code, headers=error.headers)
