"""A server that answers as it is told."""

from collections.abc import Generator

import pytest

from tests import web
from tests.artifactclient.terminal import Answers


@pytest.fixture
def answers() -> Answers:
    """What the server answers."""
    return Answers()


@pytest.fixture
def server(answers: Answers) -> Generator[web.Web]:
    """The server; `asked` is what it was asked."""
    with web.serving_from_a_thread(answers) as serving:
        yield serving
