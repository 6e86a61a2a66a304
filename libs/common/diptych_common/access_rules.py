"""Paths in the access rules of application credentials."""

from functools import lru_cache


class PathPattern:
    """A path of an access rule: `{name}` and `*` stand for one segment or a part of one, `**` for
    anything.

    Matching takes time proportional to the path, whatever the pattern: patterns are written by
    users, and a regular expression with fifty wildcards in it would hold a worker for hours. Bit i
    of the state says that the first i items of the pattern can have consumed what was read so far.
    """

    __slots__ = ("_anything", "_end", "_literals", "_segments")

    def __init__(self, pattern: str) -> None:
        literals: dict[str, int] = {}
        self._segments = self._anything = 0
        item = 1
        at = 0
        while at < len(pattern):
            closing = pattern.find("}", at) if pattern[at] == "{" else -1
            if pattern.startswith("**", at):
                # Two in a row say no more than one, and `matches` steps over only one at a time.
                if not self._anything & (item >> 1):
                    self._anything |= item
                    item <<= 1
                at += 2
                continue
            if pattern[at] == "*" or closing > 0:
                self._segments |= item
                at = max(closing, at) + 1
            else:
                literals[pattern[at]] = literals.get(pattern[at], 0) | item
                at += 1
            item <<= 1
        self._literals = literals
        self._end = item

    def matches(self, path: str) -> bool:
        """Whether the whole of `path` fits."""
        states = 1 | ((1 & self._anything) << 1)
        for character in path:
            following = (states & self._literals.get(character, 0)) << 1 | states & self._anything
            if character != "/":
                # One character begins a segment's item, or goes on in one that has begun.
                following |= (states & self._segments) << 1 | states & (self._segments << 1)
            states = following | (following & self._anything) << 1
            if not states:
                return False
        return bool(states & self._end)


# Shared between tokens: those of one credential all have the same patterns.
_compiled = lru_cache(maxsize=1024)(PathPattern)


def covers(pattern: str, path: str) -> bool:
    """Whether an access rule with this pattern is about this path."""
    return _compiled(pattern).matches(path)
