"""A package index and a source image of a few kilobytes: all that a base in tests is made from."""

from __future__ import annotations

import base64
import hashlib
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from mlpack.base.python import RUNTIME
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Platform
from mlpack.oci.image import Image, ImageConfig, Layer, build_image, build_index
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import StagingStore, put_bytes, put_image
from tests.support import AMD64, ARM64, real_layer

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
GLIBC = b"GNU C Library (Test GLIBC 2.36-9) stable release version 2.36.\n"


def elf(needed: tuple[str, ...] = (), *, debug: bytes = b"") -> bytes:
    """A shared object: one loaded segment, its dynamic section, and ``debug`` in no segment."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in needed)
    offsets = [1 + sum(len(each) + 1 for each in needed[:number]) for number in range(len(needed))]
    strings = 64 + 2 * 56
    dynamic = strings + len(names)
    entries = [(1, offset) for offset in offsets] + [(5, 0x1000 + strings), (0, 0)]
    table = b"".join(struct.pack("<qQ", *entry) for entry in entries)
    end = dynamic + len(table)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(b"\x7fELF\x02\x01\x01".ljust(16, b"\0"), 3, 62, 1, 0, 64, end + len(debug), 0),
        *(64, 56, 2, 64, 2, 1),
    )
    segments = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x1000, 0x1000, end, end, 0x1000)
    segments += struct.pack(
        "<IIQQQQQQ", 2, 4, dynamic, 0x1000 + dynamic, 0x1000 + dynamic, len(table), len(table), 8
    )
    section = struct.pack("<IIQQQQIIQQ", 0, 1, 0, 0, end, len(debug), 0, 0, 1, 0)
    return header + segments + names + table + debug + bytes(64) + section


def system(*, python: str = "usr/local/bin/python3.11", libc: bytes = GLIBC) -> Mapping[str, bytes]:
    """The files of an image with a Python."""
    return {python: b"python", "usr/lib/x86_64-linux-gnu/libc.so.6": libc, "etc/os-release": b"x"}


def source_image(
    store: StagingStore,
    layers: list[Mapping[str, bytes]],
    *,
    platform: Platform = AMD64,
    env: tuple[str, ...] = ("PATH=/usr/local/bin:/usr/bin", "LANG=C.UTF-8"),
) -> Image:
    """Put an image of real layers into ``store``."""
    made: list[Layer] = [real_layer(store, files) for files in layers]
    image = build_image(ImageConfig(platform=platform, env=env), made)
    put_image(store, image)
    return image


def source_layout(root: Path, *, motd: bytes = b"hi") -> LayoutStore:
    """A layout that holds the image ``python`` for both platforms."""
    store = LayoutStore(root)
    images = [source_image(store, [system(), {"etc/motd": motd}], platform=p) for p in BOTH]
    store.tag(put_bytes(store, build_index(images).content, media.INDEX), "python")
    return store


BOTH = (AMD64, ARM64)


@dataclass
class Index:
    """A package index (PEP 503) of tiny wheels."""

    folder: Path

    def add(
        self,
        name: str,
        version: str,
        *,
        needs: tuple[str, ...] = (),
        native: bool = False,
        links: tuple[str, ...] = ("libc.so.6",),
    ) -> None:
        """Publish a wheel, one for each platform where it is ``native``."""
        tags = [f"cp311-cp311-manylinux_2_17_{each}" for each in MACHINES.values()]
        for tag in tags if native else ["py3-none-any"]:
            self._publish(name, version, tag, needs, links)
        self._list(name)

    def remove(self, name: str) -> None:
        """Take a package out of the index."""
        for file in self._files(name):
            file.unlink()
        self._list(name)

    def _files(self, name: str) -> list[Path]:
        return sorted((self.folder / "wheels").glob(f"{name.replace('-', '_')}-*.whl"))

    def _list(self, name: str) -> None:
        page = self.folder / "simple" / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        links = (
            f'<a href="/wheels/{file.name}#sha256={hashlib.sha256(file.read_bytes()).hexdigest()}">'
            f"{file.name}</a>"
            for file in self._files(name)
        )
        page.write_text("\n".join(links))

    def _publish(
        self, name: str, version: str, tag: str, needs: tuple[str, ...], links: tuple[str, ...]
    ) -> None:
        module = name.replace("-", "_")
        info = f"{module}-{version}.dist-info"
        files = {
            f"{module}/__init__.py": f"version = {version!r}\n".encode(),
            f"{module}/__init__.pyi": b"version: str\n",
            f"{info}/METADATA": (
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
                + "".join(f"Requires-Dist: {each}\n" for each in needs)
                + "\nA long description.\n"
            ).encode(),
            f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        }
        if not tag.endswith("any"):
            files[f"{module}/native.so"] = elf(links, debug=tag.encode() * 50)
        files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
        target = self.folder / "wheels" / f"{module}-{version}-{tag}.whl"
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(target, "w") as wheel:
            for path, content in files.items():
                wheel.writestr(zipfile.ZipInfo(path), content)


def _record(files: Mapping[str, bytes], own: str) -> bytes:
    lines = []
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(content)}\n")
    return "".join([*lines, f"{own},,\n"]).encode()


def minimal_index(folder: Path) -> Index:
    """Small stand-ins for all the runtime's requirements, and ``extra``."""
    index = Index(folder)
    for name in RUNTIME:
        needs = ("numpy", "protobuf", "packaging") if name == "onnxruntime" else ()
        index.add(name, "1.0", needs=needs, native=name in ("numpy", "onnxruntime"))
    for name in ("protobuf", "packaging", "extra"):
        index.add(name, "1.0")
    return index


@dataclass
class World:
    """All that making a base reads."""

    url: str
    index: Index
    source: LayoutStore

    @property
    def source_text(self) -> str:
        """``[base] from``."""
        return f"oci:{self.source.root}:python"


class _Quiet(SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        """Let uv ask again each time: tests change the index."""
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    # uv opens many connections at once; beyond the usual 5 they would wait a second.
    request_queue_size = 128


@contextmanager
def serving(folder: Path) -> Iterator[World]:
    """Serve the index in ``folder`` until the block ends."""

    def handler(*args: object) -> _Quiet:
        return _Quiet(*args, directory=str(folder / "index"))  # type: ignore[arg-type]

    index = minimal_index(folder / "index")
    server = _Server(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        yield World(url, index, source_layout(folder / "source"))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
