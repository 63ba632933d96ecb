"""Two rollouts to 10,000 simulated devices, as they went: ``docs/design/rollout.md``.

``python -m tests.azure.transcript docs/design/rollout.md`` writes it; a test fails if it is not
what happens.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.azure.rollouts import GO, GROUP, Operator, failing, operator
from tests.doubles.authority import Request

DEVICES = 10_000
HEAD = """# Two rollouts

Written by `make docs` from what happens in `tests/azure/test_rollout.py`; do not edit.

{devices:,} simulated IoT Edge devices on a local double of IoT Hub's service API, which
Microsoft's `azure-iot-hub` 2.7.0 talks to over HTTPS. The devices' edgeAgents report as the real
one does. The base's layers have about the sizes of the fan example's, each model is 6 KB. Bytes and
money are mlpack's prediction for the devices that took part; nothing crossed a mobile network.

The devices hold fan:1. fan:2 fails on 5 % of them, fan:3 on none.
"""


def transcript(folder: Path) -> str:
    """Run everything and write it down."""
    with operator(folder, DEVICES, releases=3) as vans:
        vans.done("deploy", *GROUP, "--base", "--yes")
        vans.done("deploy", "fan:1", *GO, "--stages", "100%")
        vans.hub.behave = failing(vans.project, 2, 5)
        parts = [HEAD.format(devices=DEVICES)]
        parts += ["## A release that fails on 5 % of the devices", *_bad(vans)]
        vans.hub.advance(120)
        parts += ["## A good one", *_good(vans)]
        parts += ["## What the hub was asked", *_asked(vans.hub.rest.requests)]
    return "\n\n".join(parts) + "\n"


def _bad(vans: Operator) -> Iterable[str]:
    vans.hub.rest.requests.clear()
    yield _shown(vans, "deploy", "fan:2", *GO, status=3)
    assert vans.holding(3) == 0
    tried = vans.holding(2)
    vans.hub.advance(120)
    assert vans.holding(1) == DEVICES
    yield (
        f"{tried:,} devices had fan:2 when it was stopped; two minutes later all {DEVICES:,} run "
        "fan:1 again, whose image they still had. Tried again, it is refused:"
    )
    yield _shown(vans, "deploy", "fan:2", *GO, status=3)
    yield _shown(vans, "report", "--rollout", "0")


def _good(vans: Operator) -> Iterable[str]:
    vans.hub.rest.requests.clear()
    yield _shown(vans, "deploy", "fan:3", *GO)
    assert vans.holding(3) == DEVICES
    yield _shown(vans, "status", *GROUP)
    yield "The same command again changes nothing:"
    yield _shown(vans, "deploy", "fan:3", *GO)
    yield _shown(vans, "report", "--rollout", "0")
    yield "And the way back:"
    yield _shown(vans, "rollback", *GROUP, "--dry-run")


def _shown(vans: Operator, *args: str, status: int = 0) -> str:
    result = vans(*args)
    assert result.exit_code == status, result.output
    ended = f"\n(exit status {status})" if status else ""
    return f"```console\n$ mlpack {' '.join(args)}\n{result.output.strip()}{ended}\n```"


def _asked(requests: list[Request]) -> Iterable[str]:
    yield (
        "The requests of the good rollout and the commands after it, as the double saw them "
        "(`Authorization: SharedAccessSignature …` on each):"
    )
    counted = Counter(_line(each) for each in requests)
    rows = [f"| {count:,} | `{line}` |" for line, count in counted.items()]
    yield "\n".join(["| times | request |", "|---:|---|", *rows])
    yield "The first creates the deployment, the second widens it:"
    puts = [each for each in requests if each.method == "PUT"]
    yield _whole(puts[0])
    yield _whole(puts[1], only={"id", "labels", "targetCondition", "etag"})


def _line(asked: Request) -> str:
    if asked.path == "/devices/query":
        found = asked.json()
        assert isinstance(found, dict)
        query = re.sub(r"IN \['[^\]]*\]", "IN ['van-00000', …]", str(found["query"]))
        page = " (a further page)" if "x-ms-continuation" in asked.headers else ""
        return f"POST /devices/query: {query}{page}"
    match = f" If-Match: {asked.headers['if-match']}" if "if-match" in asked.headers else ""
    many = f": {len(_list(asked.json()))} devices" if asked.path == "/devices" else ""
    return f"{asked.method} {asked.target}{match}{many}"


def _list(found: object) -> list[object]:
    assert isinstance(found, list)
    return found


def _whole(asked: Request, only: frozenset[str] | set[str] = frozenset()) -> str:
    found = asked.json()
    assert isinstance(found, dict)
    body = {key: value for key, value in found.items() if not only or key in only}
    if "content" in body:
        module = body["content"]["modulesContent"]["$edgeAgent"]["properties.desired.modules.fan"]
        module["settings"]["createOptions"] = "…"
    rest = "" if not only else "… the rest as it was read\n"
    return f"```\n{_line(asked)}\n{json.dumps(body, indent=2, ensure_ascii=False)}\n{rest}```"


def main() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory() as folder:
        Path(sys.argv[1]).write_text(transcript(Path(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
