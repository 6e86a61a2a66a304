"""Tempest's tests of the images service. Run by the Python of their environment.

`tempest_process.py FOLDER` reads FOLDER/tempest.conf and runs all of tempest.api.image, one test
after the other. It prints a line of JSON for each: its name without `tempest.api.image.v2.`, what
became of it ("success", "skip", "failure"), and why. A class may stand for all its tests.
"""
# pyright: basic, reportMissingImports=false

import json
import os
import sys
import traceback
import unittest
from pathlib import Path


class Printing(unittest.TestResult):
    def addSuccess(self, test):
        self.tell(test, "success", "")

    def addSkip(self, test, reason):
        self.tell(test, "skip", str(reason))

    def addError(self, test, err):
        self.tell(test, "failure", "".join(traceback.format_exception(*err)))

    addFailure = addError

    def tell(self, test, outcome, reason):
        name = test.id().partition("[")[0].replace("tempest.api.image.v2.", "")
        print(json.dumps({"name": name, "outcome": outcome, "reason": reason}), flush=True)  # noqa: T201


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    os.environ |= {"TEMPEST_CONFIG_DIR": str(folder), "TEMPEST_CONFIG": "tempest.conf"}
    import tempest.api.image

    found = Path(tempest.api.image.__path__[0])
    suite = unittest.defaultTestLoader.discover(str(found), top_level_dir=str(found.parents[2]))
    suite.run(Printing())
