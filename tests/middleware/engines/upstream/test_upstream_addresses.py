"""Where an upstream may be, against real name resolution and real sockets."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import Plan, Request, collect
from elision.errors import ConfigError, ElisionError, UpstreamError
from elision.middleware.engines.remote import RemoteEngine
from elision.middleware.engines.upstream.addresses import checked_url, is_public, redirected
from elision.testing.upstream import ScriptedUpstream

PLAN = Plan(request=Request(messages=({"role": "user", "content": "Hi"},)))
KEY = "sk-canary"

NOT_PUBLIC = (
    "127.0.0.1 127.255.255.254 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 169.254.0.1 0.0.0.0 "
    "0.1.2.3 100.64.0.1 100.100.100.200 168.63.129.16 192.0.0.192 224.0.0.1 239.1.1.1 240.0.0.1 "
    "255.255.255.255 198.18.0.1 ::1 :: fe80::1 fc00::1 fd00:ec2::254 ff02::1 fec0::1 "
    "::ffff:127.0.0.1 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 2002:7f00:1:: 2001:db8::1"
).split()
PUBLIC = "1.1.1.1 8.8.8.8 93.184.215.14 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808".split()


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_a_name_may_not_lead_here(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_name_may_lead_to_the_public_net(address: str) -> None:
    assert is_public(ip_address(address))


@given(st.integers(0, 2**32 - 1))
def test_an_address_is_judged_alike_however_it_is_wrapped(number: int) -> None:
    bare = IPv4Address(number)
    mapped = IPv6Address(f"::ffff:{bare}")
    translated = IPv6Address((0x64FF9B << 96) | number)
    assert is_public(bare) == is_public(mapped) == is_public(translated)
    assert not (is_public(bare) and (bare.is_private or bare.is_loopback or bare.is_link_local))


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/v1", "http://[fe80::1]/v1", "http://[fe80::1%25eth0]/v1",
     "http://[::ffff:169.254.169.254]/v1", "http://168.63.129.16", "http://[fd00:ec2::254]/"],
)  # fmt: skip
def test_a_link_local_url_must_be_meant(url: str) -> None:
    with pytest.raises(ConfigError, match="upstream_private"):
        checked_url(url)
    assert checked_url(url, private=True) == url.rstrip("/")


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0", "1.2.3.4.5", "127.0.0.01", "٣.1.1.1"])
def test_half_an_address_is_none(host: str) -> None:
    with pytest.raises(ConfigError, match="four numbers"):
        checked_url(f"http://{host}/v1")


@pytest.mark.parametrize("url", ["http://10.0.0.1/v1", "http://[::1]:8000/v1", "http://localhost"])
def test_a_private_url_is_taken_at_its_word(url: str) -> None:
    assert checked_url(url) == url


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_what_the_operator_wrote_is_connected_to(host: str) -> None:
    async with ScriptedUpstream("Hello") as up:
        engine = RemoteEngine(up.url.replace("127.0.0.1", host), model="scripted")
        assert (await collect(engine.stream(PLAN))).text == "Hello"
        await engine.aclose()


async def fault_at(url: str, **options: Any) -> ElisionError:
    engine = RemoteEngine(url, model="scripted", key=KEY, **options)
    with pytest.raises(ElisionError) as caught:
        await collect(engine.stream(PLAN))
    await engine.aclose()
    return caught.value


@pytest.mark.parametrize("host", ["0x7f.0.0.1", "0x7f000001"])
async def test_a_name_that_spells_a_private_address_is_refused(host: str) -> None:
    async with ScriptedUpstream("Hello") as up:
        fault = await fault_at(up.url.replace("127.0.0.1", host))
        assert (up.seen, up.n_lines) == ([], 0)
    assert "upstream_private" in str(fault)
    assert not fault.retryable


def leads(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Have the system's resolver answer for ``up.example``, each time with the next address."""
    real, asked = socket.getaddrinfo, list[str]()

    def resolve(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host != "up.example":
            return real(host, port, *args, **options)
        asked.append(host)
        return real(answers[min(len(asked), len(answers)) - 1], port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


async def test_the_address_that_was_judged_is_the_one_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with ScriptedUpstream("Hello") as up:
        url = up.url.replace("127.0.0.1", "up.example")
        asked = leads(monkeypatch, "192.0.2.1", "127.0.0.1")
        fault = await fault_at(url, retries=0)
        assert (len(asked), up.seen) == (1, [])
        fault = await fault_at(url)
        assert (len(asked), up.seen) == (2, [])
    assert "upstream_private" in str(fault)


async def test_a_private_name_is_connected_to_if_that_is_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leads(monkeypatch, "127.0.0.1")
    async with ScriptedUpstream("Hello") as up:
        url = up.url.replace("127.0.0.1", "up.example")
        engine = RemoteEngine(url, model="scripted", private=True)
        assert (await collect(engine.stream(PLAN))).text == "Hello"
        await engine.aclose()


# --- Redirects -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "want"),
    [
        ("/v2/x", "http://up:80/v2/x"),
        ("y", "http://up:80/v1/y"),
        ("http://up/z", "http://up/z"),
        ("http://UP:80/z", "http://UP:80/z"),
        ("https://up/z", "https://up/z"),
        ("https://up:443/z", "https://up:443/z"),
    ],
)
def test_a_redirect_on_the_same_host_leads_there(location: str, want: str) -> None:
    assert redirected("http://up:80/v1/x", location) == want


@pytest.mark.parametrize(
    "location",
    ["http://other/v1", "//other/v1", "http://up:81/", "https://up:8443/", "http://up.evil/",
     "http://up@evil/", "ftp://up/", "http://[::1", "http://up:port/", "https://sub.up/"],
)  # fmt: skip
def test_a_redirect_to_another_host_is_refused_and_not_quoted(location: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        redirected("http://up:80/v1/x", location)
    assert "evil" not in str(caught.value)


def test_a_redirect_never_leads_from_https_back() -> None:
    with pytest.raises(UpstreamError):
        redirected("https://up/v1/x", "http://up/v1/x")


async def test_the_key_never_goes_to_another_host() -> None:
    async with ScriptedUpstream("Hello") as other:
        there = f"{other.url}/chat/completions"
        async with ScriptedUpstream("Hello", fault="redirect", location=there) as up:
            fault = await fault_at(up.url)
            assert (len(up.seen), other.seen) == (1, [])
    assert "another host" in str(fault)
    assert other.url not in str(fault)


async def test_a_redirect_on_the_same_host_is_followed_with_body_and_key() -> None:
    async with ScriptedUpstream("Hello", key=KEY, fault="redirect", n_faults=3) as up:
        up.location = "/v1/chat/completions?moved"
        engine = RemoteEngine(up.url, model="scripted", key=KEY)
        assert (await collect(engine.stream(PLAN))).text == "Hello"
        await engine.aclose()
        assert len(up.seen) == 4
        assert len({one.body for one in up.seen}) == 1


async def test_redirects_end() -> None:
    async with ScriptedUpstream("Hello", fault="redirect", location="/v1/chat/completions") as up:
        assert "more than 3" in str(await fault_at(up.url))
        assert len(up.seen) == 4
