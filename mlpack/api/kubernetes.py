"""``mlpack render --target kubernetes --apply``: objects to a cluster, through ``kubectl``."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mlpack.errors import MlpackError
from mlpack.oci.descriptor import Node

MANAGER = "mlpack"
"""The owner of the fields in the cluster's records (server-side apply)."""

_HINTS = {
    "Unauthorized": "log in to the cluster again",
    "Forbidden": "the account may not read and patch these objects: ask for that right",
    "conflict": "another tool owns these fields: leave them to it, or take them over with "
    "kubectl apply --server-side --force-conflicts -f FILE",
    "namespaces": "create the namespace, or name another in [kubernetes] namespace",
    "context": "list the contexts: kubectl config get-contexts",
    "onnect": "set KUBECONFIG, or name one of its contexts with --context",
}
"""What to do, by a word in what kubectl wrote."""


_LOG_LINE = re.compile(r"[IWEF]\d{4} \d\d:")
"""The head of a line of kubectl's log, whose errors it repeats in plain words."""


class KubectlFailed(MlpackError):
    """A request that kubectl or the cluster refused; objects before it are applied."""


@dataclass(frozen=True)
class AppliedObject:
    """One object the cluster accepted."""

    kind: str
    namespace: str
    name: str
    created: bool
    dry_run: bool

    def __str__(self) -> str:
        done = "created" if self.created else "configured"
        return (
            f"{self.kind} {self.namespace}/{self.name} {done}{' (dry run)' if self.dry_run else ''}"
        )

    def to_json(self) -> dict[str, object]:
        """The object as ``--json`` prints it."""
        return {
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "created": self.created,
            "dry_run": self.dry_run,
        }


@dataclass(frozen=True)
class Cluster:
    """A cluster as a context of the kubeconfig names it; empty for the current one."""

    context: str = ""

    @cached_property
    def name(self) -> str:
        """The context's name; raise :class:`KubectlFailed` if there is none."""
        return self.context or self.ask("config", "current-context").strip()

    def ask(self, *args: str, given: object = None) -> str:
        """Run kubectl with a JSON document as its input; return what it writes."""
        command = ["kubectl", *(("--context", self.context) if self.context else ()), *args]
        try:
            done = subprocess.run(
                command, input=json.dumps(given), capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            raise KubectlFailed(
                "kubectl is not installed",
                hint="install it (Debian: kubernetes-client), or write the objects with -o FILE",
            ) from None
        if done.returncode:
            said = _message(done.stderr) or f"kubectl ended with {done.returncode}"
            hint = next((hint for word, hint in _HINTS.items() if word in said), "")
            raise KubectlFailed(f"{self.context or 'kubectl'}: {said}", hint=hint)
        return done.stdout


def _message(stderr: str) -> str:
    """Return kubectl's own message in one line, without the log of its client library.

    >>> _message("E1128 20:51:20.131849 1 memcache.go:265] refused\\nerror: no connection\\n")
    'error: no connection'
    """
    lines = stderr.splitlines()
    own = [line for line in lines if not _LOG_LINE.match(line)]
    return " ".join(" ".join(own or lines).split())


def apply(
    objects: Sequence[Mapping[str, object]], cluster: Cluster, *, dry_run: bool = False
) -> tuple[AppliedObject, ...]:
    """Apply every object as ``kubectl apply --server-side`` does.

    Fields that others own are left to them: a conflict is refused, not forced. With
    ``dry_run`` the cluster checks everything and keeps nothing. Raises :class:`KubectlFailed`.
    """
    listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    before = _objects(
        cluster.ask("get", "--ignore-not-found", "-o", "json", "-f", "-", given=listed)
    )
    manager = f"--field-manager={MANAGER}"
    mode = ("--dry-run=server",) if dry_run else ()
    options = ("--server-side", manager, "--validate=strict", *mode, "-o", "json", "-f", "-")
    return tuple(
        AppliedObject(*each, created=each not in before, dry_run=dry_run)
        for each in _objects(cluster.ask("apply", *options, given=listed))
    )


def _objects(text: str) -> tuple[tuple[str, str, str], ...]:
    """Kind, namespace and name of the objects kubectl wrote: none, one, or a list."""
    if not text.strip():
        return ()
    found = Node(json.loads(text), "kubectl")
    listed = found.need("items").elements() if found.need("kind").text() == "List" else (found,)
    return tuple(
        (
            each.need("kind").text(),
            each.need("metadata").need("namespace").text(),
            each.need("metadata").need("name").text(),
        )
        for each in listed
    )
