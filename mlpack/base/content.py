"""The part of a base above its Python packages: runtime, entry point, environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable

from mlpack.base.debian import USER
from mlpack.base.layer_files import LayerFile, file, folder
from mlpack.base.prune_rules import rules_digest
from mlpack.base.python import runtime_packages
from mlpack.base.wheels import Interpreter
from mlpack.iotedge.module import GPU
from mlpack.model.lock import LockedPackage
from mlpack.oci.descriptor import Digest, Platform, canonical
from mlpack.oci.image import ImageConfig
from mlpack.oci.layer import PACKING
from mlpack.settings.project_settings import BaseSettings

PORT = 5001
APP_ROOT = "var/azureml-app"
"""Where Azure ML's images have the scoring script, and so do ours."""

RUNTIME_PACKAGE = "mlpack_runtime"
_SHIPPED = (".py", ".html", ".json")
ENVIRONMENT = {
    "AML_APP_ROOT": f"/{APP_ROOT}",
    # onnxruntime 1.2x and newer send usage data to Microsoft by default (Privacy.md in its
    # wheel), which costs money on a metered link.
    "ORT_DISABLE_TELEMETRY": "1",
}
"""Set in every base; devices fetch each byte with every release, so there is no more."""


def runtime_source() -> Mapping[str, bytes]:
    """Return the shipped files of the runtime, by their path below its package."""
    found = _files_of(resources.files("mlpack.runtime"))
    return {path: found[path] for path in sorted(found) if path.endswith(_SHIPPED)}


def _files_of(folder: Traversable, place: str = "") -> Mapping[str, bytes]:
    """Return all files below ``folder`` by path, without byte code."""
    found: dict[str, bytes] = {}
    for each in folder.iterdir():
        if each.is_file():
            found[place + each.name] = each.read_bytes()
        elif each.name != "__pycache__":
            found |= _files_of(each, f"{place}{each.name}/")
    return found


def runtime_files(python: Interpreter) -> tuple[LayerFile, ...]:
    """Return the files of the runtime layer."""
    place = f"{python.directory}/{RUNTIME_PACKAGE}"
    return tuple(file(f"{place}/{path}", content) for path, content in runtime_source().items())


def entry_files(
    platform: Platform, source: str, packages: Sequence[LockedPackage]
) -> tuple[LayerFile, ...]:
    """Return the files of the entry layer: the directory for models, and the base's description."""
    described = {
        "from": source,
        "packages": {each.name: each.version for each in packages},
        "platform": str(platform),
    }
    return (
        folder(f"{APP_ROOT}/azureml-models"),
        file("etc/mlpack/base.json", canonical(described) + b"\n"),
    )


def config(
    platform: Platform, python: Interpreter, inherited: Mapping[str, str], *, gpu: bool = False
) -> ImageConfig:
    """Return the image config; ``inherited`` is the environment of the source image."""
    env = {**inherited, **ENVIRONMENT}
    if not python.on_path:
        before = inherited.get("PYTHONPATH", "")
        env["PYTHONPATH"] = f"/{python.directory}" + (f":{before}" if before else "")
    return ImageConfig(
        platform=platform,
        env=tuple(f"{key}={value}" for key, value in env.items()),
        entrypoint=(f"/{python.path}", "-m", RUNTIME_PACKAGE),
        user=str(USER),
        working_dir=f"/{APP_ROOT}",
        ports=(f"{PORT}/tcp",),
        labels={GPU: "cuda"} if gpu else None,
    )


def identity(recipe: BaseSettings, requirements: Sequence[str]) -> Digest:
    """Return the digest of all inputs of a base except versions, which are in the lock.

    The mirror is not part of it, because what it serves is checked by hash.
    """
    source = {path: str(Digest.of(content)) for path, content in runtime_source().items()}
    return Digest.of(
        canonical(
            {
                "entry": [APP_ROOT, PORT, USER, ENVIRONMENT, RUNTIME_PACKAGE],
                "from": recipe.source,
                "packages": list(recipe.packages),
                "packing": PACKING.to_json(),
                "platforms": [str(each) for each in recipe.platforms],
                "requirements": sorted({*runtime_packages(recipe.gpu), *requirements}),
                "rules": str(rules_digest()),
                "runtime": source,
            }
        )
    )
