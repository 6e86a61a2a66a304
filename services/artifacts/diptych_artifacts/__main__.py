"""The program `diptych-artifacts`."""

import gc


def main() -> None:
    """Run the command line."""
    # What is imported stays: to look for garbage in it took a seventh of the time to start.
    gc.disable()
    from diptych_artifacts.cli import main as commands

    gc.enable()
    commands()


if __name__ == "__main__":
    main()
