"""What a base holds above its Python packages: the runtime, the entry point, the environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable

from mlpack.base.debian import USER
from mlpack.base.items import Item, file, folder
from mlpack.base.python import runtime_packages
from mlpack.base.rules import rules_digest
from mlpack.base.wheels import Interpreter
from mlpack.model.lock import LockedPackage
from mlpack.model.recipe import BaseRecipe
from mlpack.oci.compression import PACKING
from mlpack.oci.descriptor import Platform
from mlpack.oci.digest import Digest
from mlpack.oci.document import canonical
from mlpack.oci.image import ImageConfig
from mlpack.render.container import GPU

PORT = 5001
APP_ROOT = "var/azureml-app"
"""Where Azure ML's images have the scoring script, and ours."""

RUNTIME_PACKAGE = "mlpack_runtime"
_SHIPPED = (".py", ".html")
ENVIRONMENT = {
    "AML_APP_ROOT": f"/{APP_ROOT}",
    # onnxruntime 1.2x and newer send usage data to Microsoft unless told not to
    # (Privacy.md in its wheel), which a metered link would pay for.
    "ORT_DISABLE_TELEMETRY": "1",
}
"""Set in every base; each byte is paid with every release, so no more than this."""


def runtime_source() -> Mapping[str, bytes]:
    """The files of the runtime by their path below its package, as they are shipped."""
    found = _files_of(resources.files("mlpack.runtime"))
    return {path: found[path] for path in sorted(found) if path.endswith(_SHIPPED)}


def _files_of(folder: Traversable, place: str = "") -> Mapping[str, bytes]:
    """All files below ``folder`` by path, but for what Python compiled."""
    found: dict[str, bytes] = {}
    for each in folder.iterdir():
        if each.is_file():
            found[place + each.name] = each.read_bytes()
        elif each.name != "__pycache__":
            found |= _files_of(each, f"{place}{each.name}/")
    return found


def runtime_items(python: Interpreter) -> tuple[Item, ...]:
    """The files of the runtime layer."""
    place = f"{python.directory}/{RUNTIME_PACKAGE}"
    return tuple(file(f"{place}/{path}", content) for path, content in runtime_source().items())


def entry_items(
    platform: Platform, source: str, packages: Sequence[LockedPackage]
) -> tuple[Item, ...]:
    """The files of the entry layer: where models go, and what this base is."""
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
    """How a container of this base starts; ``inherited`` is the environment of the source image."""
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


def identity(recipe: BaseRecipe, requirements: Sequence[str]) -> Digest:
    """The digest of all a base is made from but the versions, which the lock holds.

    The mirror is not part of it: what it serves is checked by hash.
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
