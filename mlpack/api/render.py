"""``mlpack render``: the manifest of a release, for what runs it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

from mlpack.api.deployment_content import PinnedRelease
from mlpack.api.requests import Render
from mlpack.json_document import to_json
from mlpack.plan.engines import engine
from mlpack.plan.refusals import Refusal
from mlpack.plan.refusals import warnings as warnings_of
from mlpack.project.directory import ProjectDirectory
from mlpack.project.engine_support import all_refusals
from mlpack.project.references import FoundImage, find_image, never_started
from mlpack.stores.files import atomic, output


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A manifest: its text, and its JSON document, which holds no password."""

    text: str = field(repr=False)
    document: Mapping[str, object] = field(repr=False)
    summary: str
    """What it runs, in one line."""

    notes: tuple[str, ...] = ()
    """Warnings, and parts that are left out."""

    private: bool = False
    """Whether it holds a password."""

    objects: tuple[Mapping[str, object], ...] = field(default=(), repr=False)
    """For Kubernetes and Azure: the documents of the text."""

    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The text in several files, by name, for a target whose tool takes one object from each."""

    def to_json(self) -> Mapping[str, object]:
        """Return the document that ``mlpack --json render`` prints."""
        return self.document


def render(project: ProjectDirectory, request: Render) -> Rendered:
    """Render a manifest, checked, and write it to ``output`` if the request has one.

    ``output`` is a directory for a target of several files (``FILES``); others in it stay.
    The image is pinned by its digest: that of the release's index, so that one deployment fits
    devices of every platform it was built for.
    """
    target = import_module(f"mlpack.api.targets.{request.target}")

    def rendered() -> Rendered:
        made: Rendered = target.render(project, request, _environment(project, request))
        return _with_starts(made, project, request)

    if request.output is None:
        return rendered()
    place = project.root / request.output
    names: tuple[str, ...] = getattr(target, "FILES", ())
    with ExitStack() as checked:
        for each in [place / name for name in names] or [place]:
            checked.enter_context(output(each, *_read(project, request)))
        made = rendered()
        _write(made, place)
    written = {"path": str(request.output), **({"files": list(made.files)} if names else {})}
    return replace(made, document={**made.document, **written})


def _with_starts(made: Rendered, project: ProjectDirectory, request: Render) -> Rendered:
    """Add the release's images that were not seen to start, and what the engine does not take."""
    if request.base:
        return made
    found = find_image(project, request.release or project.settings.model, request.platform)
    unseen = never_started(found)
    refusals = _refusals(project, request.target, found)
    document = {**made.document, **({"never_started": list(unseen)} if unseen else {})}
    told = tuple(f"warning: {each}" for each in warnings_of(refusals))
    document |= {"refusals": [to_json(each) for each in refusals]} if refusals else {}
    return replace(made, document=document, notes=(*made.notes, *unseen, *told))


def _refusals(project: ProjectDirectory, target: str, found: FoundImage) -> tuple[Refusal, ...]:
    """Return what the engine that runs ``target`` does not take; Azure's own is not known."""
    if target == "aci":
        return ()
    name = "containerd" if target == "kubernetes" else project.settings.device.engine
    return all_refusals(engine(name), found)


def _read(project: ProjectDirectory, request: Render) -> tuple[Path, ...]:
    """What may not be overwritten; ``--patch`` may, as it changes a manifest's image in place."""
    named = (request.template, request.token)
    others = project.settings.edge.modules.values()
    secrets = (each for other in others for each in other.secret_env.values())
    kept = (each.name for each in secrets if each.kind == "file")
    return (*(project.root / each for each in (*named, *kept) if each), *project.own_files)


def _environment(project: ProjectDirectory, request: Render) -> Mapping[str, str]:
    if request.token is None:
        return request.environment
    from mlpack.api.token import read_token

    return {**request.environment, **read_token(project.root / request.token)}


def _write(rendered: Rendered, path: Path) -> None:
    """Write it, whole or not at all; only its owner may read it if it holds a password."""
    if rendered.private:
        from mlpack.project.secret_file import write_secret

        write_secret(path, rendered.text.encode())
        return
    texts = {path / name: text for name, text in rendered.files.items()} or {path: rendered.text}
    with ExitStack() as kept:  # all are written before the first takes its name
        for place, text in texts.items():
            out = kept.enter_context(atomic(place))
            out.write(text.encode())
            out.flush()


def rendered_objects(
    request: Render,
    release: PinnedRelease,
    documents: tuple[Mapping[str, object], ...],
    *,
    warnings: tuple[str, ...] = (),
    private: bool = False,
) -> Rendered:
    """Return the documents that run a release as YAML; ``private`` if they hold a password."""
    from mlpack.render.yaml_text import dump

    return Rendered(
        text=dump(documents),
        document={
            "target": request.target,
            "name": release.name,
            "version": release.version,
            "image": str(release.image),
            "warnings": list(warnings),
            "manifests": [] if private else list(documents),
        },
        summary=f"{request.target} runs {release.image}",
        notes=tuple(f"warning: {each}" for each in warnings),
        private=private,
        objects=documents,
    )
