"""Where snapshot.debian.org keeps a version of a package that mirrors have dropped.

Its machine interface: https://salsa.debian.org/snapshot-team/snapshot/raw/master/API
"""

from __future__ import annotations

from urllib.parse import quote

from mlpack.base.download import Missing, fetch
from mlpack.model.lock import DebianPackage
from mlpack.oci.document import Node, parse

_MOST_ANSWER = 1024 * 1024


def locate(server: str, wanted: DebianPackage) -> str:
    """The URL of the .deb of ``wanted``; raise :class:`Missing` where the server has none."""
    name, version = quote(wanted.name, safe=""), quote(wanted.version, safe="")
    url = f"{server}/mr/binary/{name}/{version}/binfiles"
    answer = parse(fetch(url, limit=_MOST_ANSWER), url)
    for file in answer.need("result").elements():
        if file.need("architecture").text() == wanted.architecture:
            return f"{server}/file/{_sha1(file)}"
    raise Missing(f"{url} lists no file for {wanted.architecture}")


def _sha1(file: Node) -> str:
    # The service names files by their sha1; what comes is checked by the locked sha256.
    return file.need("hash").text()
