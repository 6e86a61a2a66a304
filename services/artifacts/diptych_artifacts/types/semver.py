"""Versions of artifacts: whatever resembles one, made a Semantic Version, and how they sort.

Source: Semantic Versioning 2.0.0, sections 9 to 11; what counts as resembling one is what Glare's
users know, which is `Version.coerce` of python-semanticversion.
"""

import re
from dataclasses import dataclass
from typing import Final

# Glare packs the numbers into 16 bits each and pads numeric identifiers to six digits, and fails
# with 500 beyond that.
LARGEST_NUMBER: Final = 65_535
_LONGEST_NUMERIC_IDENTIFIER: Final = 6
_LONGEST: Final = 255

_NUMBERS: Final = re.compile(r"[0-9]+(?:\.[0-9]+){0,2}")
_NOT_OF_IDENTIFIERS: Final = re.compile(r"[^0-9A-Za-z+.-]")

# Sorts before whatever an identifier may consist of.
_END_OF_IDENTIFIER: Final = "!"
# Sorts after the first character of any identifier's key: a release is after its pre-releases.
_RELEASE: Final = "~"


@dataclass(frozen=True, slots=True)
class Version:
    """A Semantic Version.

    `text` is the canonical form, `build` the part behind `+` ("" for none). `sort_key` orders by
    code points (in PostgreSQL: COLLATE "C") as versions do; the build is no part of it.
    """

    text: str
    build: str
    sort_key: str


def coerce(value: str) -> Version:
    """The version that the text stands for: `1` is 1.0.0, `1.0-beta` 1.0.0-beta, `1.2.3.4` 1.2.3+4.

    Raises ValueError, with a message for the client, for what does not begin with a digit, for
    identifiers that are empty or numeric with a leading zero, and for numbers beyond the limits.
    """
    if len(value) > _LONGEST:
        raise ValueError(f"A version has at most {_LONGEST} characters.")
    begin = _NUMBERS.match(value)
    if begin is None:
        raise ValueError(f"{value!r} is not a version: it does not begin with a number.")
    numbers = [int(number) for number in begin.group().split(".")]
    numbers += [0] * (3 - len(numbers))
    if max(numbers) > LARGEST_NUMBER:
        raise ValueError(f"{value!r} is not a version: a number is above {LARGEST_NUMBER}.")
    prerelease, build = _rest(_NOT_OF_IDENTIFIERS.sub("-", value[begin.end() :]))
    text = ".".join(map(str, numbers))
    key = ".".join(f"{number:05}" for number in numbers)
    if prerelease:
        text += f"-{prerelease}"
        key += "".join(_key(identifier) for identifier in prerelease.split("."))
    else:
        key += _RELEASE
    if build:
        text += f"+{build}"
        if "" in build.split("."):
            raise ValueError(f"{value!r} is not a version: an identifier is empty.")
    return Version(text, build, key)


def _rest(rest: str) -> tuple[str, str]:
    """What follows the three numbers, as the pre-release and the build."""
    prerelease = ""
    if rest.startswith(("+", ".")):
        # A fourth number is taken for a build.
        build = rest[1:]
    else:
        prerelease, _, build = rest.removeprefix("-").partition("+")
    return prerelease, build.replace("+", ".")


def _key(identifier: str) -> str:
    """The sort key of one identifier of a pre-release: numbers come first, and as numbers."""
    if not identifier:
        raise ValueError("A part of the version's pre-release is empty.")
    if not identifier.isdigit():
        return f"1{identifier}{_END_OF_IDENTIFIER}"
    if identifier.startswith("0") and identifier != "0":
        raise ValueError(f"{identifier} in the version's pre-release begins with a zero.")
    if len(identifier) > _LONGEST_NUMERIC_IDENTIFIER:
        raise ValueError(
            f"{identifier} in the version's pre-release has more than"
            f" {_LONGEST_NUMERIC_IDENTIFIER} digits."
        )
    return f"0{identifier:0>{_LONGEST_NUMERIC_IDENTIFIER}}{_END_OF_IDENTIFIER}"
