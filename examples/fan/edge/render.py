"""Fill in this folder's templates: what runs on the device next to the module.

    python render.py                                  the files here, for one device
    python render.py --to /etc/fan --broker-bind 0.0.0.0

Telegraf (or bridge.py) writes what comes over MQTT into InfluxDB; Grafana shows it with
grafana-dashboard.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jinja2

HERE = Path(__file__).resolve().parent
SUFFIX = ".j2"


def render(settings: dict[str, Any]) -> dict[str, str]:
    """The text of each file by its name."""
    environment = jinja2.Environment(  # noqa: S701 (no HTML)
        loader=jinja2.FileSystemLoader(HERE),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return {
        path.name.removesuffix(SUFFIX): environment.get_template(path.name).render(settings)
        for path in sorted(HERE.glob(f"*{SUFFIX}"))
    }


def settings(said: list[str] | None = None) -> dict[str, Any]:
    """What the templates are filled in with."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--to", type=Path, default=HERE, metavar="FOLDER")
    parser.add_argument("--broker-port", type=int, default=1883)
    parser.add_argument("--broker-bind", default="127.0.0.1", help="where the broker listens")
    parser.add_argument("--broker", help="where others find it; default: 127.0.0.1 and its port")
    parser.add_argument("--topics", default="fan/#")
    parser.add_argument("--influx-bind", default="127.0.0.1:8086")
    parser.add_argument("--influx-rpc-port", type=int, default=8088)
    parser.add_argument("--influx", help="where others find InfluxDB")
    parser.add_argument("--database", default="fan")
    parser.add_argument("--data", default="/var/lib/fan", help="folder for the data")
    found = vars(parser.parse_args(said))
    found["broker"] = found["broker"] or f"127.0.0.1:{found['broker_port']}"
    found["influx"] = found["influx"] or f"http://{found['influx_bind']}"
    return found


def main() -> None:
    """Write all files."""
    found = settings()
    found["to"].mkdir(parents=True, exist_ok=True)
    for name, text in render(found).items():
        (found["to"] / name).write_text(text, encoding="utf-8")
        print(found["to"] / name)


if __name__ == "__main__":
    main()
