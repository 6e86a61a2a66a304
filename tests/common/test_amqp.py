"""What transport URLs say, without a broker; events that are sent are in tests/images."""

import pytest
from diptych_common import amqp
from diptych_common.amqp import Server


@pytest.mark.parametrize(
    ("url", "servers", "virtual_host", "tls"),
    [
        ("rabbit://", [Server("localhost", None, "guest", "guest")], "/", None),
        ("rabbit://host", [Server("host", None, "guest", "guest")], "/", None),
        ("rabbit://u:p@host:1/", [Server("host", 1, "u", "p")], "/", None),
        ("rabbit://u:p%2F%40@[::1]:1//", [Server("::1", 1, "u", "p/@")], "/", None),
        ("rabbit://u:p@[::1]/my%20host", [Server("::1", None, "u", "p")], "my host", None),
        (
            "rabbit://u:p@a:1,v:q@b:2/open?ssl=1",
            [Server("a", 1, "u", "p"), Server("b", 2, "v", "q")],
            "open",
            True,
        ),
        ("rabbit://u:p@host/?ssl=0", [Server("host", None, "u", "p")], "/", False),
    ],
)
def test_a_transport_url_is_read(
    url: str, servers: list[Server], virtual_host: str, tls: bool | None
) -> None:
    assert amqp.parse(url) == amqp.Transport(tuple(servers), virtual_host, tls)


@pytest.mark.parametrize(
    "url",
    ["", "secret", "kafka://u:secret@host", "rabbit://u:secret@host:port", "rabbit://u:secret@[x"],
)
def test_another_url_is_refused_without_what_it_holds(url: str) -> None:
    with pytest.raises(ValueError, match="rabbit://") as refused:
        amqp.parse(url)
    assert "secret" not in str(refused.value)
