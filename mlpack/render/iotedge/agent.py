"""Checks of ``$edgeAgent``: the runtime, the system modules and the user's modules.

Rules and their sources: IoT Edge's edgeAgent schemas 1.0 and 1.1, the sources of
edgeAgent 1.6, and Microsoft Learn, "limits and restrictions" (2025-07).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from mlpack.oci.document import Node
from mlpack.render.iotedge import create_options
from mlpack.render.iotedge.create_options import HostPort
from mlpack.render.iotedge.image_name import PLACEHOLDER, image_problem
from mlpack.render.iotedge.manifest import Section
from mlpack.render.iotedge.problem import (
    Check,
    Problem,
    member,
    members,
    one_of,
    run,
    text,
    whole_number,
)

SCHEMAS = ("1.0", "1.1")
MAX_MODULES = 50
"""Modules a deployment may hold (Microsoft Learn, IoT Hub quotas)."""

MAX_STARTUP_ORDER = 4294967295
_MODULE_ID = re.compile(r"[a-zA-Z0-9_-]+")
_ENV_NAME = re.compile(r"[^+#$.\s]+")
_CREDENTIAL_ID = re.compile(r"[^.$# ]+")
_UNIMPLEMENTED = ("on-failure", "on-unhealthy")


def check_agent(section: Section) -> Iterator[Problem]:
    """Check the section of a whole deployment."""
    keys = ("schemaVersion", "runtime", "systemModules", "modules")
    yield from run(
        section.desired,
        members(keys),
        member("schemaVersion", schema_version(SCHEMAS)),
        member("runtime", _runtime),
        member("systemModules", _system_modules),
        member("modules", _modules),
        _startup_order_needs_1_1,
        _one_module_per_host_port,
    )


def check_layered_agent(section: Section) -> Iterator[Problem]:
    """Check the section of a layered deployment: modules, and credentials to pull them."""
    for key, node in section.desired.items():
        if key not in ("modules", "runtime"):
            yield Problem(node.where, "belongs in the base deployment, not in a layered one")
    modules = section.desired.get("modules")
    for name, node in modules.items() if modules else ():
        # A path into a module changes part of what the base deployment says of it.
        whole = ("modules", name) in section.paths or ("modules",) in section.paths
        yield from _module_id(name, node)
        yield from run(node, *_MODULE if whole else (_PART, *_MODULE[1:]))
    yield from run(section.desired, member("runtime", member("settings", _credentials)))
    yield from run(section.desired, _one_module_per_host_port)


def schema_version(known: tuple[str, ...]) -> Check:
    """Check a ``schemaVersion``: the device answers 412 to one it does not know."""

    def check(node: Node) -> Iterator[Problem]:
        version = node.text()
        if found := PLACEHOLDER.search(version):
            yield Problem(node.where, f"holds {found[0]}, a placeholder that was not filled in")
        elif version not in known:
            yield Problem(node.where, f"is {version!r}; devices read {', '.join(known)}")

    return check


def _runtime(node: Node) -> Iterator[Problem]:
    settings = members((), ("minDockerVersion", "loggingOptions", "registryCredentials"))
    yield from run(
        node,
        members(("type", "settings")),
        member("type", one_of(("docker",))),
        member("settings", settings),
        member("settings", member("minDockerVersion", text)),
        member("settings", member("loggingOptions", text)),
        member("settings", _credentials),
    )


def _credentials(settings: Node) -> Iterator[Problem]:
    found = settings.get("registryCredentials")
    for name, node in found.items() if found else ():
        if not _CREDENTIAL_ID.fullmatch(name):
            yield Problem(node.where, f"{name!r} is no name (no dot, $, # or space)")
        yield from run(node, members(("address", "username", "password")))
        for key in ("address", "username", "password"):
            yield from run(node, member(key, _not_empty))


def _not_empty(node: Node) -> Iterator[Problem]:
    if not node.text().strip():
        yield Problem(node.where, "is empty")


def _system_modules(node: Node) -> Iterator[Problem]:
    yield from run(
        node,
        members(("edgeAgent", "edgeHub")),
        # No status, no restart policy: edgeAgent is kept running by the daemon.
        member("edgeAgent", members(("type", "settings"), ("env", "imagePullPolicy"))),
        member("edgeHub", members(_NEEDED, ("env", "imagePullPolicy", "startupOrder"))),
    )
    for _, module in node.items():
        yield from run(module, *_MODULE[1:])


def _modules(node: Node) -> Iterator[Problem]:
    count = len(node.mapping())
    if count > MAX_MODULES:
        yield Problem(node.where, f"holds {count} modules, a deployment at most {MAX_MODULES}")
    for name, module in node.items():
        yield from _module_id(name, module)
        yield from run(module, *_MODULE)


def _module_id(name: str, node: Node) -> Iterator[Problem]:
    if not _MODULE_ID.fullmatch(name):
        yield Problem(node.where, f"{name!r} is no module id (letters, digits, _ and -)")


def _settings(node: Node) -> Iterator[Problem]:
    for key, value in node.items():
        # edgeAgent ignores env here; older tutorials have it, so it is a warning.
        if key not in ("image", "digest", "env") and not create_options.is_member(key):
            yield Problem(value.where, "is not a known member (image, createOptions)")
    yield from run(node, member("image", _image), create_options.check)


def _needs_image(node: Node) -> Iterator[Problem]:
    settings = node.get("settings")
    if settings is not None and settings.get("image") is None:
        yield Problem(settings.where, "'image' is missing")


def _image(node: Node) -> Iterator[Problem]:
    if what := image_problem(node.text()):
        yield Problem(node.where, what)


def _env(node: Node) -> Iterator[Problem]:
    for name, value in node.items():
        if not _ENV_NAME.fullmatch(name):
            yield Problem(value.where, f"{name!r} is no variable name (no + # $ dot or space)")
        yield from run(value, members(("value",)), member("value", _env_value))


def _env_value(node: Node) -> Iterator[Problem]:
    if not isinstance(node.value, str | int | float | bool):
        yield Problem(node.where, "is not a text, a number or a boolean")


def _restart_policy(node: Node) -> Iterator[Problem]:
    if node.text() in _UNIMPLEMENTED:
        yield Problem(
            node.where,
            f"is {node.value!r}, which edgeAgent does not implement: use always, and a "
            "Healthcheck in createOptions",
        )
    else:
        yield from one_of(("always", "never"))(node)


_NEEDED = ("type", "status", "restartPolicy", "settings")
_OPTIONAL = ("version", "env", "imagePullPolicy", "startupOrder")
_PART = members((), (*_NEEDED, *_OPTIONAL))
_MODULE: tuple[Check, ...] = (
    members(_NEEDED, _OPTIONAL),
    _needs_image,
    member("type", one_of(("docker",))),
    member("status", one_of(("running", "stopped"))),
    member("restartPolicy", _restart_policy),
    member("imagePullPolicy", one_of(("on-create", "never"))),
    member("startupOrder", whole_number(0, MAX_STARTUP_ORDER)),
    member("version", text),
    member("env", _env),
    member("settings", _settings),
)
"""The first says which members a user's module has; the others hold for system modules too."""


def _every_module(desired: Node) -> Iterator[tuple[str, Node]]:
    for group in ("systemModules", "modules"):
        found = desired.get(group)
        if found is not None:
            yield from found.items()


def _startup_order_needs_1_1(desired: Node) -> Iterator[Problem]:
    # The public schemas take it with 1.0, where edgeAgent ignores it.
    version = desired.get("schemaVersion")
    if version is None or version.value != "1.0":
        return
    for _, module in _every_module(desired):
        order = module.get("startupOrder")
        if order is not None:
            yield Problem(order.where, "needs schemaVersion 1.1")


def _one_module_per_host_port(desired: Node) -> Iterator[Problem]:
    taken: list[tuple[str, HostPort]] = []
    for name, module in _every_module(desired):
        settings = module.get("settings")
        if settings is not None:
            yield from run(settings, partial(_taken_ports, name=name, taken=taken))


def _taken_ports(
    settings: Node, *, name: str, taken: list[tuple[str, HostPort]]
) -> Iterator[Problem]:
    for bound in create_options.host_ports(create_options.join(settings)):
        other = next((who for who, each in taken if each.clashes(bound)), None)
        if other is None:
            taken.append((name, bound))
        else:
            who = "it" if other == name else other
            yield Problem(
                bound.where, f"binds port {bound.port} of the host, which {who} binds too"
            )
