"""Files that hold a secret: for their owner alone to read, and never where git keeps them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mlpack.errors import MlpackError
from mlpack.iotedge.secrets import SecretVariable
from mlpack.settings.edge import SecretSource
from mlpack.stores.files import PRIVATE, atomic, followed

_TIMEOUT_SECONDS = 10
MAX_SECRET_BYTES = 4 * 1024
"""What a value in a device's twin may have."""


class Tracked(MlpackError):
    """A file for a secret that git tracks, or would track."""


def write_secret(path: Path, content: bytes) -> str:
    """Write ``path`` whole or not at all, mode 0600; return what :func:`require_untracked` does.

    Raises :class:`Tracked` before anything is written.
    """
    note = require_untracked(path)
    with atomic(path, mode=PRIVATE) as out:
        out.write(content)
    return note


def require_untracked(path: Path) -> str:
    """Raise :class:`Tracked` unless git ignores ``path``; return a note if git cannot tell.

    ``git check-ignore`` decides; it does not count a file as ignored that is tracked already,
    whatever .gitignore lists. Outside of a repository any path is fine.
    """
    path = followed(path)
    folder = _existing(path.absolute().parent)
    if not any((each / ".git").exists() for each in (folder, *folder.parents)):
        return ""
    unknown = f"git cannot tell whether it tracks {path}: make sure that it does not"
    git = shutil.which("git")
    if git is None:
        return unknown
    command = [git, "-C", str(folder), "check-ignore", "-q", "--", str(path.absolute())]
    try:
        status = subprocess.run(
            command, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False
        ).returncode
    except (OSError, subprocess.SubprocessError):
        return unknown
    if status == 1:
        raise Tracked(
            f"git tracks {path}, or would track it, and it is to hold a password",
            hint=f"add {path.name} to .gitignore (git rm --cached it if it is tracked), or name a "
            "file outside of the repository",
        )
    return "" if status == 0 else unknown


class MissingSecret(MlpackError):
    """Secret variables that the environment or a file does not have."""


def read_secrets(
    variables: Iterable[SecretVariable], root: Path, environment: Mapping[str, str]
) -> Sequence[str]:
    """Return the values of secret variables, from where they are kept.

    Files are relative to ``root``; the line break at their end does not count. Raises
    :class:`MissingSecret`, which names every one that is not there, and :class:`Tracked` for a
    file that git keeps.
    """
    values, missing = [], []
    for each in variables:
        try:
            values.append(_secret(each.source, root, environment))
        except MissingSecret as error:
            missing.append(f"{each.name} of module {each.module}: {error}")
    if missing:
        raise MissingSecret(
            "; ".join(missing),
            hint="[edge.modules.NAME] secret_env says where each comes from",
        )
    return values


def _secret(source: SecretSource, root: Path, environment: Mapping[str, str]) -> str:
    """Return the value, which no message repeats."""
    if source.kind == "env":
        if not environment.get(source.name):
            raise MissingSecret(f"{source.name} is not set in the environment")
        return environment[source.name]
    path = root / source.name
    if not path.is_file():
        raise MissingSecret(f"{path} is not a file")
    require_untracked(path)
    try:
        with path.open("rb") as content:
            found = content.read(MAX_SECRET_BYTES + 1)
        text = found.decode().removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise MissingSecret(f"{path} cannot be read as a text") from error
    if len(found) > MAX_SECRET_BYTES:
        raise MissingSecret(f"{path} has more than {MAX_SECRET_BYTES} bytes")
    if not text.strip() or "\0" in text:
        raise MissingSecret(f"{path} holds no text")
    return text


def _existing(folder: Path) -> Path:
    while not folder.is_dir():
        folder = folder.parent
    return folder
