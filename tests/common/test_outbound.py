"""Where requests may go, and where not: what becomes of them is in test_outbound_answers.py."""

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from diptych_common.outbound import MOST_ADDRESSES, Filter, Outbound, Refused
from diptych_common.settings import Outbound as OutboundSettings
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.common.networks import PUBLIC, PUBLIC_6, Leading, Refusing, fetched
from tests.common.ssrf import FORBIDDEN_ADDRESSES, FORBIDDEN_URLS, in_url
from tests.web import Asked, answer, head, serving

# Where it must not go.


@pytest.mark.parametrize("url", FORBIDDEN_URLS, ids=ascii)
async def test_a_forbidden_url_is_refused_and_nobody_asked(url: str) -> None:
    network = Refusing({"allowed.example.org": [PUBLIC]})
    outbound = network.outbound()
    with pytest.raises((Refused, ValueError)):
        await fetched(outbound, url)
    with pytest.raises((Refused, ValueError)):
        outbound.check(url)
    assert (network.asked, network.connected) == ([], [])


@pytest.mark.parametrize("scheme", ["http", "https", "HTTP"])
@pytest.mark.parametrize("address", FORBIDDEN_ADDRESSES)
async def test_a_forbidden_address_is_refused_and_nobody_asked(address: str, scheme: str) -> None:
    network = Refusing()
    outbound = network.outbound()
    for port in ("", ":", ":80", ":443"):
        url = f"{scheme}://{in_url(address)}{port}/latest/meta-data"
        with pytest.raises(Refused):
            await fetched(outbound, url)
        with pytest.raises(Refused):
            outbound.check(url)
    assert (network.asked, network.connected) == ([], [])


@pytest.mark.parametrize("address", FORBIDDEN_ADDRESSES)
async def test_a_name_at_a_forbidden_address_is_refused(address: str) -> None:
    network = Refusing({"example.org": [address], "lo.example.org.": [address]})
    for url in ("http://example.org/", "https://EXAMPLE.ORG./x?y#z"):
        with pytest.raises(Refused) as refused:
            await fetched(network.outbound(), url)
        assert address not in str(refused.value)
    assert (network.asked, network.connected) == (["example.org", "example.org"], [])


@pytest.mark.parametrize(
    "answers", [[PUBLIC, "10.0.0.1"], ["::1", PUBLIC], [PUBLIC_6, "fe80::1%2"]]
)
async def test_a_name_with_one_forbidden_address_is_refused(answers: list[str]) -> None:
    network = Refusing({"example.org": answers})
    with pytest.raises(Refused):
        await fetched(network.outbound(), "http://example.org/")
    assert network.connected == []


async def test_the_systems_own_look_up_is_vetted() -> None:
    network = Refusing()
    outbound = Outbound(OutboundSettings(), connect=network.connect)
    with pytest.raises(Refused):
        await fetched(outbound, "http://localhost/")
    assert network.connected == []


REDIRECTS = (301, 302, 303, 307, 308)
NAMES = {
    "example.org": [PUBLIC],
    "other.example": [PUBLIC],
    "allowed.example.org": [PUBLIC],
    "private.example.org": ["10.0.0.1"],
    "mixed.example.org": [PUBLIC, "10.0.0.1"],
}


def redirecting(location: str, status: int = 302) -> Callable[..., Any]:
    """Redirects the first request, and answers the next."""
    raw = location.encode("utf-8", "surrogatepass")
    heads = [head(status, content_length=0)[:-2] + b"Location: " + raw + b"\r\n\r\n"]

    async def handle(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(heads.pop() if heads else head(content_length=2) + b"ok")
        await writer.drain()

    return handle


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/",
        "//169.254.169.254/latest/meta-data",
        "http://[::ffff:127.0.0.1]/",
        "http://2130706433/",
        "http://private.example.org/",
        "//mixed.example.org/",
        "http://user:password@allowed.example.org/",
        "http://allowed.example.org:22/",
        "file:///etc/passwd",
        "file://allowed.example.org/etc/passwd",
        "ftp://allowed.example.org/",
        "gopher://allowed.example.org/_x",
        "javascript:alert(1)",
        "http://allowed.example.org/\t",
        "http://allowed.\texample.org/",
        "http://allowed.example.org/\u00e9",
        "\\\\169.254.169.254\\",
    ],
    ids=ascii,
)
async def test_a_redirect_there_is_refused(status: int, location: str) -> None:
    async with serving(redirecting(location + "x", status)) as web:
        network = Leading(web, NAMES)
        with pytest.raises(Refused):
            await fetched(network.outbound(), "http://example.org/")
        assert network.connected == [(PUBLIC, 80, "example.org")]
        assert len(web.asked) == 1


@pytest.mark.parametrize("address", FORBIDDEN_ADDRESSES)
async def test_a_redirect_to_a_forbidden_address_is_refused(address: str) -> None:
    for scheme in ("http:", "https:", ""):
        async with serving(redirecting(f"{scheme}//{in_url(address)}/")) as web:
            network = Leading(web)
            with pytest.raises(Refused):
                await fetched(network.outbound(), "http://example.org/")
            assert network.connected == [(PUBLIC, 80, "example.org")]


async def test_a_redirect_to_a_forbidden_url_leads_nowhere_else() -> None:
    # A line end would end the header; blanks around a header's value are not part of it.
    locations = [
        url for url in FORBIDDEN_URLS if not {*url} & {*"\r\n"} and url == url.strip(" \t")
    ]
    for location in locations:
        async with serving(redirecting(location)) as web:
            network = Leading(web, NAMES)
            try:
                async with network.outbound().open("http://example.org/") as found:
                    # Beside a base it is a path of the same host.
                    assert found.url.startswith("http://example.org/"), location
            except (Refused, ConnectionError):
                pass
            assert {one[:2] for one in network.connected} == {(PUBLIC, 80)}, location
            assert {asked.headers["host"] for asked in web.asked} == {"example.org"}, location


async def test_a_name_that_moves_between_look_up_and_connection_gains_nothing() -> None:
    class Rebinding(Leading):
        async def resolve(self, host: str, port: int) -> Sequence[str]:
            found = await super().resolve(host, port)
            self.names = {host: ["127.0.0.1"]}
            return found

    async with serving(answer(b"here")) as web:
        network = Rebinding(web)
        assert await fetched(network.outbound(), "http://example.org/") == b"here"
        assert network.asked == ["example.org"]
        assert network.connected == [(PUBLIC, 80, "example.org")]
        assert web.asked[0].headers["host"] == "example.org"
    async with serving(redirecting("/again")) as web:
        network = Rebinding(web)
        with pytest.raises(Refused):
            await fetched(network.outbound(), "http://example.org/")
        assert network.connected == [(PUBLIC, 80, "example.org")]


WORDS = "http https :// // : / ? # @ [ ] \\ % . 80 443 22 example.org 127.0.0.1 ::1 0x7f.1 8.8.8.8"
WORDS_6 = "::ffff:10.0.0.1 2606:4700::1111 64:ff9b::a00:1"
PIECES = st.sampled_from([*WORDS.split(), *WORDS_6.split(), "\u2025", "\t", "\r\n", "\x00", " "])


@example("http://private.example.org/", ["10.0.0.1"])
@example("http://8.8.8.8/", [])
@given(
    st.text() | st.lists(PIECES, max_size=12).map("".join) | PIECES.map("http://{}/".format),
    st.lists(st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str), max_size=3),
)
@settings(max_examples=400, deadline=None)
async def test_no_url_leads_to_an_address_that_is_not_public(
    url: str, addresses: list[str]
) -> None:
    class AnyName(Refusing):
        async def resolve(self, host: str, port: int) -> Sequence[str]:
            return addresses

    network = AnyName()
    with pytest.raises((Refused, ValueError, ConnectionError)):
        await fetched(network.outbound(), url)
    for address, port, _ in network.connected:
        # Python's own table, which knows nothing of ours.
        known = ipaddress.ip_address(address)
        assert known.is_global
        assert not known.is_multicast
        assert not known.is_reserved
        assert port in (80, 443)


# Where it may go.


@pytest.mark.parametrize(
    ("url", "connected"),
    [
        (f"http://{PUBLIC}/", (PUBLIC, 80, PUBLIC)),
        (f"https://{PUBLIC}/", (PUBLIC, 443, PUBLIC)),
        (f"http://{PUBLIC}:443/", (PUBLIC, 443, PUBLIC)),
        (f"http://[{PUBLIC_6}]/", (PUBLIC_6, 80, PUBLIC_6)),
        ("http://example.org", (PUBLIC, 80, "example.org")),
        ("HTTPS://Example.ORG.:/x", (PUBLIC, 443, "example.org")),
        ("http://six.example.org/", (PUBLIC_6, 80, "six.example.org")),
        (
            "http://my_mirror-1.xn--bcher-kva.example/",
            (PUBLIC, 80, "my_mirror-1.xn--bcher-kva.example"),
        ),
    ],
)
async def test_a_public_address_is_connected_to(url: str, connected: tuple[str, int, str]) -> None:
    names = {
        "example.org": [PUBLIC],
        "six.example.org": [PUBLIC_6],
        "my_mirror-1.xn--bcher-kva.example": [PUBLIC],
    }
    network = Refusing(names)
    with pytest.raises(ConnectionError):
        await fetched(network.outbound(), url)
    assert network.connected == [connected]


async def test_all_addresses_of_a_name_are_tried_in_turn() -> None:
    found = [f"93.184.216.{number}" for number in range(MOST_ADDRESSES + 5)]
    network = Refusing({"example.org": found})
    with pytest.raises(ConnectionError):
        await fetched(network.outbound(), "http://example.org/")
    assert [address for address, _, _ in network.connected] == found[:MOST_ADDRESSES]


@pytest.mark.parametrize(
    ("options", "url", "is_allowed"),
    [
        ({"allowed_hosts": ("mirror.example",)}, "http://mirror.example/", True),
        ({"allowed_hosts": ("Mirror.Example.",)}, "https://MIRROR.example./", True),
        ({"allowed_hosts": ("mirror.example",)}, "http://mirror.example:8080/", False),
        ({"allowed_hosts": ("mirror.example:8080",)}, "http://mirror.example:8080/", True),
        ({"allowed_hosts": ("mirror.example:8080",)}, "http://mirror.example/", True),
        ({"allowed_hosts": ("mirror.example:8080",)}, "http://example.org:8080/", False),
        ({"allowed_hosts": ("example",)}, "http://mirror.example/", False),
        ({"allowed_hosts": ("mirror.example",)}, "http://www.mirror.example/", False),
        ({"allowed_hosts": ("10.1.2.3",)}, "http://10.1.2.3/", True),
        ({"allowed_hosts": ("[fd00::3]:81",)}, "http://[fd00:0::0003]:81/", True),
        ({"allowed_hosts": ("10.1.2.3",)}, "http://mirror.example/", False),
        ({"allowed_networks": ("10.1.0.0/16",)}, "http://mirror.example/", True),
        ({"allowed_networks": ("10.1.2.3",)}, "http://mirror.example/", True),
        ({"allowed_networks": ("10.2.0.0/16",)}, "http://mirror.example/", False),
        ({"allowed_networks": ("10.1.0.0/16",)}, "http://[::ffff:10.1.2.3]/", False),
        ({"allowed_networks": ("::1",)}, "http://[::1]/", True),
        ({"allowed_networks": ("64:ff9b::/96",)}, "http://[64:ff9b::808:808]/", True),
        ({"allowed_networks": ("64:ff9b::/96",)}, "http://[64:ff9b::a01:203]/", False),
        ({"allowed_networks": ("64:ff9b::/96", "10.1.2.3")}, "http://[64:ff9b::a01:203]/", True),
        ({"allowed_networks": ("2002::/16",)}, "http://[2002:808:808::]/", True),
        ({"allowed_networks": ("2002::/16",)}, "http://[2002:a01:203::]/", False),
        ({"allowed_networks": ("2001::/32",)}, "http://[2001:0:a01:203:0:0:f7f7:f7f7]/", False),
        ({"allowed_networks": ("2001::/32",)}, "http://[2001:0:808:808:0:0:f7f7:f7f7]/", True),
        ({"allowed_networks": ("2001::/32",)}, "http://[2001:0:808:808::f5fe:fdfc]/", False),
        ({"denied_networks": ("93.184.0.0/16",)}, "http://example.org/", False),
        ({"denied_networks": ("93.184.216.34",)}, f"http://{PUBLIC}/", False),
        ({"denied_networks": ("93.184.216.35",)}, f"http://{PUBLIC}/", True),
        (
            {"denied_networks": ("93.0.0.0/8",), "allowed_networks": ("93.184.216.34",)},
            "http://example.org/",
            True,
        ),
        ({"allowed_ports": ("80", "8080")}, "http://example.org:8080/", True),
        ({"allowed_ports": ("8080",)}, "http://example.org/", False),
        ({"allowed_ports": ()}, "http://example.org:22/", True),
    ],
)
async def test_the_operator_says_what_else_may_be_asked(
    options: dict[str, Any], url: str, is_allowed: bool
) -> None:
    network = Refusing(
        {
            "example.org": [PUBLIC],
            "mirror.example": ["10.1.2.3"],
            "www.mirror.example": ["10.1.2.3"],
        }
    )
    with pytest.raises(ConnectionError if is_allowed else Refused):
        await fetched(network.outbound(**options), url)
    assert bool(network.connected) == is_allowed


@pytest.mark.parametrize(
    ("trusted", "url", "is_allowed"),
    [
        ("http://mirror.example:9292/image", "http://mirror.example:9292/v2", True),
        ("http://mirror.example:9292", "https://Mirror.Example.:9292/", True),
        ("http://mirror.example:9292", "http://mirror.example/", False),
        ("http://mirror.example:9292", "http://mirror.example:9293/", False),
        ("http://mirror.example:9292", "http://www.mirror.example:9292/", False),
        ("http://mirror.example:9292", "http://10.1.2.3:9292/", False),
        ("http://mirror.example", "http://mirror.example:80/", True),
        ("http://mirror.example", "https://mirror.example/", False),
        ("http://10.1.2.3:9292", "http://10.1.2.3:9292/", True),
        ("http://10.1.2.3:9292", "http://mirror.example:9292/", False),
        ("http://[fd00::3]", "http://[fd00:0::0003]/", True),
        ("ftp://mirror.example:9292", "ftp://mirror.example:9292/", False),
    ],
)
async def test_a_trusted_host_may_be_asked_at_its_port_and_no_other(
    trusted: str, url: str, is_allowed: bool
) -> None:
    network = Refusing({"mirror.example": ["10.1.2.3"], "www.mirror.example": ["10.1.2.3"]})
    outbound = network.outbound(denied_networks=("10.1.0.0/16",))
    with pytest.raises(ConnectionError if is_allowed else Refused):
        await fetched(outbound.trusting(trusted), url)
    assert bool(network.connected) == is_allowed
    # And nobody else may, with the same rules.
    with pytest.raises(Refused):
        await fetched(outbound, url)


@pytest.mark.parametrize("url", ["http://user:password@mirror.example/", "mirror.example", ""])
def test_what_is_no_url_is_not_trusted(url: str) -> None:
    with pytest.raises((Refused, ValueError)):
        Outbound(OutboundSettings()).trusting(url)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("allowed_hosts", "http://mirror.example"),
        ("allowed_hosts", "mirror.example/images"),
        ("allowed_hosts", "*.example"),
        ("allowed_hosts", "user@mirror.example"),
        ("allowed_hosts", "mirror.example:0"),
        ("allowed_networks", "10.1.2.3/8"),
        ("allowed_networks", "mirror.example"),
        ("denied_networks", "10.0.0.0/33"),
        ("allowed_ports", "http"),
        ("allowed_ports", "0"),
        ("allowed_ports", "65536"),
    ],
)
def test_rules_that_cannot_be_read_are_named(option: str, value: str) -> None:
    options: dict[str, Any] = {option: (value,)}
    with pytest.raises(ValueError, match=option) as raised:
        Outbound(OutboundSettings(**options))
    assert value in str(raised.value)


def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    for file in (tmp_path / "missing.pem", tmp_path):
        with pytest.raises(ValueError, match="cafile"):
            Outbound(OutboundSettings(cafile=str(file)))
    empty = tmp_path / "empty.pem"
    empty.touch()
    with pytest.raises(ValueError, match="cafile"):
        Outbound(OutboundSettings(cafile=str(empty)))


@pytest.mark.parametrize(
    ("lists", "url", "is_let_through"),
    [
        ({}, "http://example.org:8080/", True),
        ({"allowed_schemes": {"https"}}, "http://example.org/", False),
        ({"allowed_schemes": {"https"}}, "https://example.org/", True),
        ({"disallowed_schemes": {"http"}}, "http://example.org/", False),
        (
            {"allowed_schemes": {"http"}, "disallowed_schemes": {"http"}},
            "http://example.org/",
            True,
        ),
        ({"allowed_hosts": {"example.org"}}, "http://EXAMPLE.org./", True),
        ({"allowed_hosts": {"example.com"}}, "http://example.org/", False),
        ({"disallowed_hosts": {"example.org"}}, "http://Example.Org./", False),
        ({"allowed_ports": {8080}}, "http://example.org:8080/", True),
        ({"allowed_ports": {8080}}, "http://example.org:80/", False),
        ({"allowed_ports": {8080}}, "http://example.org/", True),
        ({"disallowed_ports": {80}}, "http://example.org:80/", False),
        ({"disallowed_ports": {80}}, "http://example.org/", True),
    ],
)
async def test_a_caller_may_let_less_through(
    lists: dict[str, set[Any]], url: str, is_let_through: bool
) -> None:
    chosen = Filter(**{name: frozenset(values) for name, values in lists.items()})
    network = Refusing({"example.org": [PUBLIC]})
    outbound = network.outbound(allowed_ports=())
    with pytest.raises(ConnectionError if is_let_through else Refused):
        await fetched(outbound, url, filter=chosen)
    assert bool(network.connected) == is_let_through
    if is_let_through:
        outbound.check(url, filter=chosen)
    else:
        with pytest.raises(Refused):
            outbound.check(url, filter=chosen)


async def test_a_callers_filter_holds_for_redirects_too() -> None:
    chosen = Filter(disallowed_hosts=frozenset({"other.example"}))
    async with serving(redirecting("http://other.example/")) as web:
        network = Leading(web)
        with pytest.raises(Refused):
            await fetched(network.outbound(), "http://example.org/", filter=chosen)
        assert [name for _, _, name in network.connected] == ["example.org"]
