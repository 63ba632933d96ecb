"""Logins as Docker, podman and Kubernetes keep them: their files, and the helpers these name.

The files are those of both (docker/cli, containers-auth.json(5)), asked in podman's order. In one
file a helper comes first, then the entry whose key fits the repository most closely. What cannot
be read or run does not stop the search: it is a problem that is told if a registry then refuses.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from mlpack.errors import MlpackError
from mlpack.oci.descriptor import MAX_DOCUMENT_BYTES, InvalidContent, Node, parse
from mlpack.stores.files import NotAFile, open_file

DOCKER_HUB = "https://index.docker.io/v1/"
HELPER_SECONDS = 60.0
"""How long a helper may take: it may ask its user for a passphrase."""

AZURE_USER = "00000000-0000-0000-0000-000000000000"
"""The user name of Azure's registries for logins by token (azure.github.io/acr/AAD-OAuth.html)."""

_LONGEST_ANSWER = 64 * 1024
"""Bytes of a helper's answer: what a pipe holds, so that one which prints more hangs, and ends."""

_NOT_FOUND = b"credentials not found"
_TOKEN = "<token>"  # noqa: S105 - helpers return it in place of a user name
_HUB_NAMES = {"docker.io", "index.docker.io", "registry-1.docker.io"}
PROGRAM = "docker-credential-"
_PODMAN = "containers/auth.json"
_SECRET = ".dockerconfigjson"  # noqa: S105 - the name of a file
_LEGACY = ".dockercfg"


class BadCredentials(MlpackError):
    """A helper that returns no login, and does not say that it has none."""


@dataclass(frozen=True)
class Credentials:
    """A user name and a password, or an identity token; never shown."""

    username: str = field(repr=False)
    password: str = field(repr=False, default="")
    token: str = field(repr=False, default="")
    """An identity token, which is exchanged for others; preferred to a password."""

    @classmethod
    def of(cls, username: str, secret: str) -> Credentials:
        """Make credentials; with two special user names, the secret is a token."""
        if username == _TOKEN:
            return cls("", token=secret)
        if username == AZURE_USER:
            # As ``az acr login`` stores it: a refresh token of ACR, from its /oauth2/exchange.
            return cls(username, secret, token=secret)
        return cls(username, secret)


@dataclass(frozen=True)
class Login:
    """What is stored for a repository, if anything, and where."""

    credentials: Credentials | None = None
    place: str = ""
    """The file and the key that answered; never a secret."""

    problems: tuple[str, ...] = ()
    """Files, entries and helpers that could not be used."""


def login_files(environment: Mapping[str, str], home: Path | None, user: int) -> tuple[Path, ...]:
    """Return where logins of the user with the id ``user`` may be, in the order they are asked.

    The order is podman's. Docker asks its own file only, and podman none after a file that
    ``REGISTRY_AUTH_FILE`` names; here the others follow, for whoever has logged in with either.
    """
    given, docker = environment.get("REGISTRY_AUTH_FILE"), environment.get("DOCKER_CONFIG")
    runtime, settings = environment.get("XDG_RUNTIME_DIR"), environment.get("XDG_CONFIG_HOME")
    if not settings and home is not None:
        settings = str(home / ".config")
    return (
        *([Path(given)] if given else ()),
        # A mounted secret of Kubernetes is such a folder, too.
        *([Path(docker, "config.json"), Path(docker, _SECRET)] if docker else ()),
        Path(runtime, _PODMAN) if runtime else Path(f"/run/containers/{user}/auth.json"),
        *([Path(settings, _PODMAN)] if settings else ()),
        *([home / ".docker" / "config.json"] if home and not docker else ()),
        *([home / _LEGACY] if home else ()),
    )


class Logins:
    """The logins of ``files``; a file that has one for a repository comes before all after it.

    ``given`` is the content of a file that comes before all, as ``DOCKER_AUTH_CONFIG``.
    """

    def __init__(self, files: Sequence[Path] = (), given: str = "") -> None:
        self._files = tuple(files)
        self._given = given
        self._answers: dict[tuple[str, str], Credentials | BadCredentials | None] = {}

    def find(self, registry: str, repository: str = "") -> Login:
        """Return the login for ``repository`` of ``registry``; each helper is run once."""
        problems: list[str] = []
        for where, content in self._contents(problems):
            for name, ask in self._candidates(where, content, registry, repository, problems):
                try:
                    found = ask()
                except InvalidContent as error:
                    problems.append(str(error))
                    continue
                except BadCredentials as error:
                    problems.append(f"{where}: {error}")
                    continue
                if found is not None:
                    return Login(found, f"{where}, {name}", tuple(problems))
        return Login(problems=tuple(problems))

    def _contents(self, problems: list[str]) -> Iterator[tuple[str, bytes]]:
        if self._given:
            yield "DOCKER_AUTH_CONFIG", self._given.encode(errors="surrogateescape")
        for path in self._files:
            if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises if it may not look
                continue
            try:
                with open_file(path) as content:
                    yield str(path), content.read(MAX_DOCUMENT_BYTES + 1)
            except OSError as error:
                problems.append(f"{path} cannot be read ({error.strerror})")
            except NotAFile as error:
                problems.append(str(error))

    def _candidates(
        self, where: str, content: bytes, registry: str, repository: str, problems: list[str]
    ) -> Iterator[tuple[str, Callable[[], Credentials | None]]]:
        """Yield what one file offers, the best first: a name for it, and how it is asked."""
        try:
            config = _document(content, where)
            helper, named = _helper(config, registry, repository)
            entries = _closest(config.get("auths"), registry, repository)
        except InvalidContent as error:
            problems.append(str(error))
            return
        if helper:
            server = DOCKER_HUB if registry in _HUB_NAMES else registry
            yield f"{named} ({PROGRAM}{helper})", partial(self._run, helper, server)
        for key, entry in entries:
            yield f"auths {key!r}", partial(_entry, entry)

    def _run(self, helper: str, server: str) -> Credentials | None:
        """Ask a helper, once only: it may be slow, or ask its user."""
        if (helper, server) not in self._answers:
            try:
                self._answers[helper, server] = _run_helper(helper, server)
            except BadCredentials as error:
                self._answers[helper, server] = error
        answer = self._answers[helper, server]
        if isinstance(answer, BadCredentials):
            raise answer
        return answer


def specificity(key: str, registry: str, repository: str) -> tuple[int, ...] | None:
    """Return how closely the key of an entry fits a repository; the greatest is the closest.

    ``None`` if it is for others. A key is a host, with any namespace after it (podman); or an
    address, of which the host counts (Docker); ``*`` is any part of a host (Kubernetes).

    >>> order = ("r.io", "https://r.io/v2/", "r.io/a", "r.io/a/b", "*.io")
    >>> sorted(order, key=lambda key: specificity(key, "r.io", "a/b"), reverse=True)
    ['r.io/a/b', 'r.io/a', 'r.io', 'https://r.io/v2/', '*.io']
    >>> specificity("r.io/other", "r.io", "a/b"), specificity("r.io", "r.io:5000", "a/b")
    (None, None)
    """
    bare = re.sub(r"^https?://", "", key.strip(), flags=re.IGNORECASE)
    host, _, path = bare.partition("/")
    exact = _known(host) == _known(registry)
    if not exact and not _matches(host.lower(), registry.lower()):
        return None
    space = [part for part in path.split("/") if part]
    if space and space == repository.split("/")[: len(space)]:
        return (exact, 2, len(space))
    if not space or space[0] in {"v1", "v2"}:
        return (exact, 1, key == bare)
    return (exact, 0, 0) if key != bare else None


def _known(host: str) -> str:
    return "docker.io" if host.lower() in _HUB_NAMES else host.lower()


def _matches(pattern: str, host: str) -> bool:
    """Whether a host with ``*`` matches, part by part (Kubernetes, *Images*)."""
    patterns, parts = pattern.split("."), host.split(".")
    return len(patterns) == len(parts) and all(map(fnmatchcase, parts, patterns))


def _document(content: bytes, where: str) -> Node:
    """Read a file of any form into one with ``auths`` (and helpers); an empty one has nothing."""
    if not content.strip():
        return Node({}, where)
    document = parse(content, where)
    data = document.get("data")
    if document.get("kind") is not None and data is not None:
        # A secret as ``kubectl get secret -o json`` shows it.
        kept = data.get(_SECRET) or data.get(_LEGACY)
        if kept is None:
            return Node({}, where)
        document = parse(_decoded(kept), where)
        if data.get(_SECRET) is None:
            return Node({"auths": document.value}, where)
    if Path(where).name == _LEGACY and document.get("auths") is None:
        return Node({"auths": document.value}, where)
    return document


def _helper(config: Node, registry: str, repository: str) -> tuple[str, str]:
    """Return the helper to ask, and the setting that names it; a registry's own may be none."""
    for key, helper in _closest(config.get("credHelpers"), registry, repository):
        return helper.text(), f"credHelpers {key!r}"
    general = config.get("credsStore")
    return (general.text() if general else ""), "credsStore"


def _closest(entries: Node | None, registry: str, repository: str) -> list[tuple[str, Node]]:
    """Return the entries for a repository, the closest first."""
    found = []
    for key, entry in entries.items() if entries else ():
        rank = specificity(key, registry, repository)
        if rank is not None:
            found.append((rank, key, entry))
    found.sort(key=lambda each: each[0], reverse=True)
    return [(key, entry) for _, key, entry in found]


def _entry(entry: Node) -> Credentials | None:
    """Read an entry; one without a login, as a helper leaves it, has none."""

    def text(key: str) -> str:
        found = entry.get(key)
        return found.text() if found else ""

    username, password = text("username"), text("password")
    packed = entry.get("auth")
    if packed is not None and packed.text().strip():
        # As Go keeps strings: bytes, whatever their encoding.
        pair = _decoded(packed).decode("utf-8", "surrogateescape")
        username, colon, password = pair.partition(":")
        if not colon:
            raise InvalidContent(packed.where, "is not a user name and a password")
        password = password.strip("\0")
    if token := text("identitytoken"):
        return Credentials(username, password, token)
    return Credentials.of(username, password) if username and password else None


def _decoded(packed: Node) -> bytes:
    """Decode base64 as people paste it: with line breaks, without padding, in both alphabets."""
    text = re.sub(r"\s", "", packed.text()).translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        # The cause contains the secret text, so it is not passed on.
        raise InvalidContent(packed.where, "is not base64") from None


def _run_helper(helper: str, server: str) -> Credentials | None:
    """Run ``docker-credential-<helper> get``: the server on stdin, JSON on stdout."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", helper):
        raise BadCredentials(f"{helper!r} is not the name of a credential helper")
    program = f"{PROGRAM}{helper}"
    try:
        status, answer = _answer(program, server)
    except subprocess.TimeoutExpired:
        raise BadCredentials(f"{program} did not end in {HELPER_SECONDS:.0f} s") from None
    except OSError as error:
        raise BadCredentials(f"{program} could not be run ({error.strerror})") from None
    if _NOT_FOUND in answer.lower():
        return None
    if status != 0:
        # Its output is not repeated: it may contain anything.
        raise BadCredentials(f"{program} ended with status {status}")
    return _parse_helper(program, answer)


def _answer(program: str, server: str) -> tuple[int, bytes]:
    """Return a helper's status and what it printed, at most what a pipe holds.

    Its end is waited for, and not that of its output, which a program it started may keep open.
    """
    with subprocess.Popen(
        [program, "get"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None  # noqa: S101 - both are pipes
        assert stdout is not None  # noqa: S101
        try:
            with suppress(BrokenPipeError):
                stdin.write(server.encode())
                stdin.close()
            status = process.wait(HELPER_SECONDS)
            os.set_blocking(stdout.fileno(), False)
            with suppress(BlockingIOError):
                return status, os.read(stdout.fileno(), _LONGEST_ANSWER)
            return status, b""
        except BaseException:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            raise


def _parse_helper(program: str, text: bytes) -> Credentials | None:
    try:
        answer = parse(text, program)
        name, secret = answer.need("Username").text(), answer.need("Secret").text()
    except InvalidContent:
        raise BadCredentials(f"{program} returned no user name and secret") from None
    return Credentials.of(name, secret) if secret else None
