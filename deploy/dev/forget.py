"""`make clean-data`: what `make run` and `make stack` keep is thrown away."""

import shutil
import sys

from dev import postgres, run, stack, terminal
from dev.places import STATE, DevError


def forget() -> None:
    """Remove all that they keep, and their configuration; DevError while one runs."""
    with terminal.only_one():
        kept = [STATE / name for name in ("keystone", "images", "images-cheap", "artifacts")]
        kept += [run.RUN, run.SECRET_KEY, stack.STACK, postgres.elsewhere()]
        kept += [*STATE.glob("postgres*"), *STATE.glob("rabbitmq*")]
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
