"""`make clean-data`: what `make run` keeps is thrown away, so that the next one starts afresh."""

import shutil
import sys

from dev import postgres, run
from dev.places import STATE, DevError


def forget() -> None:
    """Remove all that `make run` keeps, and its configuration; DevError while it runs."""
    with run.only_one():
        kept = [STATE / name for name in ("keystone", "images", "images-cheap", "artifacts")]
        kept += [run.RUN, run.SECRET_KEY, postgres.elsewhere()]
        kept += STATE.glob("postgres*")
        for path in kept:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        forget()
    except DevError as error:
        sys.exit(f"make clean-data: {error}")
