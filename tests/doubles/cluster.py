"""A stand-in for ``kubectl`` and the cluster behind it, as far as mlpack calls them.

It takes the arguments of ``get`` and server-side ``apply`` that mlpack gives and refuses all
others, checks objects against the API's schemas (package kubernetes-validate), keeps them in a
file next to it, and writes what kubectl writes. Installed as a program by :func:`install`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import kubernetes_validate

CONTEXTS = {"edge": "edge", "locked-out": "default"}
"""Contexts, the current one first, and their namespaces."""

VERSION = "1.33"
NAMESPACES = ("default", "edge")
_APPLY = {"--server-side", "--field-manager=mlpack", "--validate=strict"}


@dataclass
class Kubectl:
    """The program's folder, as a test sees it."""

    folder: Path

    @property
    def calls(self) -> list[list[str]]:
        """The arguments of every call."""
        log = self.folder / "calls"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    @property
    def objects(self) -> dict[str, Any]:
        """The objects the cluster keeps, by ``namespace/kind/name``."""
        kept = self.folder / "objects.json"
        found: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
        return found

    def own(self, kind: str) -> None:
        """Let another field manager own the fields of a kind."""
        (self.folder / "owned").write_text(kind)

    def hang_up(self) -> None:
        """Answer no request any more."""
        (self.folder / "away").touch()


def install(folder: Path) -> Kubectl:
    """Install the stand-in as ``kubectl`` in ``folder``."""
    folder.mkdir()
    checkout = Path(__file__).resolve().parents[2]
    program = folder / "kubectl"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(checkout)!r})\n"
        f"from tests.doubles.cluster import main\nmain({str(folder)!r})\n"
    )
    program.chmod(0o755)
    return Kubectl(folder)


def main(folder: str) -> None:
    """Do what the arguments say, as kubectl does."""
    here, args = Kubectl(Path(folder)), sys.argv[1:]
    with (here.folder / "calls").open("a") as log:
        log.write(json.dumps(args) + "\n")
    context = next(iter(CONTEXTS))
    if args[:1] == ["--context"]:
        context, args = args[1], args[2:]
    if context not in CONTEXTS:
        _fail(f'error: context "{context}" does not exist')
    if args == ["config", "current-context"]:
        sys.stdout.write(f"{context}\n")
        return
    _require_answer(here, context)
    verb, options, given = args[0], set(args[1:]), json.load(sys.stdin)
    if args[-4:] != ["-o", "json", "-f", "-"]:
        _fail("error: must specify one of -f and -k")
    options -= {"-o", "json", "-f", "-"}
    if verb == "get" and options == {"--ignore-not-found"}:
        _get(here, context, given["items"])
    elif verb == "apply" and _APPLY <= options <= {*_APPLY, "--dry-run=server"}:
        _apply(here, context, given["items"], dry_run="--dry-run=server" in options)
    else:
        _fail(f"error: unknown command or flag: {args}")


def _require_answer(here: Kubectl, context: str) -> None:
    if (here.folder / "away").exists():
        _fail("Unable to connect to the server: dial tcp 127.0.0.1:1: connect: connection refused")
    if context == "locked-out":
        _fail("error: You must be logged in to the server (Unauthorized)")


def _get(here: Kubectl, context: str, items: list[Any]) -> None:
    kept = here.objects
    _print([kept[key] for each in items if (key := _key(each, context)) in kept])


def _apply(here: Kubectl, context: str, items: list[Any], *, dry_run: bool) -> None:
    kept, owned = here.objects, here.folder / "owned"
    applied = []
    for each in items:
        key = _key(each, context)
        kind, name = each["kind"], each["metadata"]["name"]
        if key.partition("/")[0] not in NAMESPACES:
            _fail(f'Error from server (NotFound): namespaces "{key.partition("/")[0]}" not found')
        try:
            kubernetes_validate.validate(each, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            _fail(f"Error from server (BadRequest): {kind} {name}: {error.message}")
        if owned.exists() and owned.read_text() == kind:
            _fail('error: Apply failed with 1 conflict: conflict with "kubectl": .spec.replicas')
        namespace = key.partition("/")[0]
        kept[key] = {**each, "metadata": {**each["metadata"], "namespace": namespace}}
        applied.append(kept[key])
        if not dry_run:
            (here.folder / "objects.json").write_text(json.dumps(kept))
    _print(applied)


def _key(document: Any, context: str) -> str:  # noqa: ANN401
    namespace = document["metadata"].get("namespace", CONTEXTS[context])
    return f"{namespace}/{document['kind']}/{document['metadata']['name']}"


def _print(objects: list[Any]) -> None:
    """Write nothing, one object, or a list, as kubectl does."""
    if len(objects) == 1:
        json.dump(objects[0], sys.stdout)
    elif objects:
        json.dump({"apiVersion": "v1", "kind": "List", "items": objects}, sys.stdout)


def _fail(message: str) -> NoReturn:
    sys.exit(message)
