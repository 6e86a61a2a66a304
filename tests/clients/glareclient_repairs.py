"""What python-glareclient 0.5.3 needs on today's Python, and no more."""
# pyright: basic, reportMissingImports=false

import glareclient.common.utils
import glareclient.v1.artifacts


def repair():
    """Mend the list that ends at its limit, and downloads."""
    whole_list = glareclient.v1.artifacts.Controller.list

    def listed(self, *arguments, **named):
        # It ends by StopIteration, which generators may not raise any more (PEP 479).
        found = whole_list(self, *arguments, **named)
        try:
            yield from found
        except RuntimeError as error:
            if not isinstance(error.__cause__, StopIteration):
                raise

    glareclient.v1.artifacts.Controller.list = listed

    blob = glareclient.common.utils.ResponseBlobWrapper
    begin = blob.__init__

    def begun(self, *arguments, **named):
        begin(self, *arguments, **named)
        self.iter = Chunks(self.iter)

    blob.__init__ = begun


class Chunks:
    """An iterator with the `next` that all had in Python 2."""

    def __init__(self, chunks):
        self.chunks = chunks

    def next(self):
        return next(self.chunks)
