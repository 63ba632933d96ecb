"""``mlpack render --target``: what is not IoT Edge; printed, written, or given to a cluster."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.cli import options, output
from mlpack.errors import UsageError

if TYPE_CHECKING:
    from mlpack.api.elsewhere import Elsewhere, Wanted
    from mlpack.oci.descriptor import Platform
    from mlpack.oci.reference import Reference

KUBERNETES, ACI = "kubernetes", "aci"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What ``--apply`` and the options beside it say."""

    apply: bool = False
    dry_run: bool = False
    yes: bool = False
    context: str = ""


def wanted(
    repository: Reference | None,
    platform: Platform | None,
    module: str,
    group: str,
    base: Reference | None,
    *,
    passwords: bool,
) -> Wanted:
    """What the options of ``mlpack render`` ask for."""
    from mlpack.api.elsewhere import Wanted

    return Wanted(
        repository=repository,
        platform=platform,
        module=module,
        group=group,
        base=base,
        environment=os.environ if passwords else None,
    )


def refuse(base: Reference | None, cluster: Cluster) -> None:
    """Raise ``UsageError`` where options for a cluster are given for IoT Edge."""
    if base or cluster != Cluster():
        raise UsageError(
            "--image-volume, --apply, --context, --dry-run and --yes are for --target kubernetes"
        )


def render(target: str, release: str, wanted: Wanted, path: Path | None, cluster: Cluster) -> None:
    """Render ``release`` for ``target``; raise ``UsageError`` where options do not fit it."""
    from mlpack.api import elsewhere

    if cluster.apply and target != KUBERNETES:
        raise UsageError("--apply is for --target kubernetes")
    if wanted.base and target != KUBERNETES:
        raise UsageError("--image-volume is for --target kubernetes")
    make = elsewhere.kubernetes if target == KUBERNETES else elsewhere.container_instances
    rendered = make(options.project(), release, wanted)
    for each in rendered.warnings:
        output.note(f"warning: {each}")
    if path is not None:
        _write(rendered, options.settings().directory / path)
        output.note(f"{path}: {rendered.target} runs {rendered.image}")
    if cluster.apply:
        _apply(rendered, cluster)
    elif path is not None:
        output.answer({**rendered.to_json(), "path": str(path)}, "")
    else:
        output.answer(rendered.to_json(), rendered.text.rstrip("\n"))


def _write(rendered: Elsewhere, path: Path) -> None:
    from mlpack.stores.files import atomic
    from mlpack.stores.private import write_private

    if rendered.private:
        write_private(path, rendered.text.encode())
        return
    with atomic(path) as out:
        out.write(rendered.text.encode())


def _apply(rendered: Elsewhere, cluster: Cluster) -> None:
    from mlpack.api.kubernetes import Cluster as Reached
    from mlpack.api.kubernetes import apply

    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    reached = Reached(Path(named) if named else Path.home() / ".kube" / "config", cluster.context)
    if not cluster.dry_run:
        names = ", ".join(str(each["kind"]) for each in rendered.documents)
        output.agree(f"apply {names} to {reached.name}?", yes=cluster.yes)
    done = apply(rendered.documents, reached, dry_run=cluster.dry_run)
    document = {**rendered.to_json(), "applied": [each.to_json() for each in done]}
    output.answer(document, "\n".join(str(each) for each in done))
