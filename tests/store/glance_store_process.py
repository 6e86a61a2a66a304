"""Glance's own store library behind a pipe, run by the Python of its environment.

`python glance_store_process.py CONFIG` reads one JSON command per line and answers with one line:
`{"add": id, "backend": name, "file": path}` → `{"location": …}`, `{"get": location, "backend":
name, "file": path}` → `{"size": …}`, `{"delete": location, "backend": name}` → `{}`; an exception
is answered by its class: `{"error": "NotFound"}`.
"""

import json
import os
import sys
from typing import Any

from glance_store import multi_backend  # pyright: ignore[reportMissingImports] - of its own environment
from oslo_config import cfg  # pyright: ignore[reportMissingImports]


class Context:
    """What Glance's request context is to a store: nothing of it is needed with one account."""

    service_catalog: list[Any] = []
    auth_token = user_id = project_id = None


def answer(command: dict[str, Any]) -> dict[str, Any]:
    backend = command["backend"]
    if "add" in command:
        with open(command["file"], "rb") as data:
            location, *_ = multi_backend.add_with_multihash(
                cfg.CONF,
                command["add"],
                data,
                os.path.getsize(command["file"]) if command.get("sized", True) else 0,
                backend,
                "sha256",
                context=Context(),
            )
        return {"location": location}
    if "get" in command:
        blocks, _ = multi_backend.get(command["get"], backend, context=Context())
        size = 0
        with open(command["file"], "wb") as data:
            for block in blocks:
                size += data.write(block)
        return {"size": size}
    multi_backend.delete(command["delete"], backend, context=Context())
    return {}


def main(config: str) -> None:
    cfg.CONF.register_opts([cfg.DictOpt("enabled_backends")])
    cfg.CONF(["--config-file", config], project="glance")
    multi_backend.register_store_opts(cfg.CONF)
    multi_backend.create_multi_stores(cfg.CONF)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        try:
            told = answer(json.loads(line))
        except Exception as error:  # told to the test, by its name
            told = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
