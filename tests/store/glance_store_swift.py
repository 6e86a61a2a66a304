"""Run with the Python of the environment `glance_store`: Glance's own library at a real Swift.

The arguments are `add` or `get`, the options of the section as JSON, then the id and the path of
the image's data, or a location. `add` prints the location, `get` writes the data to stdout.
"""
# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false

import io
import json
import sys
from pathlib import Path

from glance_store import multi_backend
from oslo_config import cfg

what, options, *arguments = sys.argv[1:]
conf = cfg.CONF  # the library looks there itself
conf.register_opt(cfg.DictOpt("enabled_backends"))
conf([], project="glance", default_config_files=[])
conf.set_override("enabled_backends", {"objects": "swift"})
multi_backend.register_store_opts(conf)
conf.set_override("default_backend", "objects", group="glance_store")
for name, value in json.loads(options).items():
    conf.set_override(name, value, group="objects")
multi_backend.create_multi_stores(conf)
if what == "add":
    image_id, path = arguments
    data = Path(path).read_bytes()
    # A size of 0 is Glance's word for an unknown one: such an image is written in segments.
    location, size, *_ = multi_backend.add_with_multihash(
        conf, image_id, io.BytesIO(data), 0, "objects", "sha256"
    )
    assert size == len(data)
    sys.stdout.write(location)
else:
    chunks, _ = multi_backend.get(arguments[0], "objects")
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)
