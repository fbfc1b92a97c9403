"""Addresses: no spelling of a private address gets through, public ones do, and what is checked is pinned."""

import asyncio
import json
import socket
from collections.abc import Sequence

import pytest

from agent2389.errors import ConfigurationError
from agent2389.tools.addresses import AddressPolicy, AddressRefused, check, exemption_of, policy_of
from tests.support.structure import ROOT

CORPUS = ROOT / "tests" / "corpus" / "addresses" / "spellings.jsonl"
CASES = [json.loads(line) for line in CORPUS.read_text().splitlines()]


class Resolver:
    """Answers with what a case says and remembers how often it was asked."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not answer:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return answer


@pytest.mark.parametrize("case", CASES, ids=[f"{n}-{case['url'][:40]!a}" for n, case in enumerate(CASES)])
async def test_every_spelling_has_its_expected_answer(case: dict[str, object]) -> None:
    resolver = Resolver(case.get("resolves", []))  # type: ignore[arg-type]
    url = str(case["url"])
    if "allowed" in case:
        target = await check(url, AddressPolicy(), resolver)
        assert target.addresses == (case["allowed"],)
    else:
        with pytest.raises(AddressRefused) as refused:
            await check(url, AddressPolicy(), resolver)
        assert str(case["refused"]) in str(refused.value)
        for address in ("127.0.0.1", "10.0.0", "169.254"):
            assert address not in str(refused.value), "a refusal must not tell what a name resolves to"
    assert len(resolver.asked) <= 1


def test_the_corpus_is_large_enough() -> None:
    assert len([case for case in CASES if "refused" in case]) >= 60
    assert len([case for case in CASES if "allowed" in case]) >= 10


async def test_a_name_is_resolved_once_so_that_it_cannot_answer_differently() -> None:
    resolver = Resolver(["93.184.216.34"], ["127.0.0.1"])
    target = await check("https://flips.example/", AddressPolicy(), resolver)
    assert target.addresses == ("93.184.216.34",)
    assert resolver.asked == ["flips.example"]


async def test_a_slow_resolver_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent2389.tools.addresses.RESOLVE_SECONDS", 0.01)

    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(AddressRefused, match="cannot be resolved"):
        await check("https://slow.example/", AddressPolicy(), never)


@pytest.mark.parametrize(
    ("allow", "url", "works"),
    [
        (["10.1.0.0/16"], "http://10.1.2.3/", True),
        (["10.1.0.0/16"], "http://10.2.2.3/", False),
        (["10.1.0.0/16"], "http://10.1.2.3:8080/", False),
        (["10.1.0.0/16:8080"], "http://10.1.2.3:8080/", True),
        (["10.1.0.0/16:8080"], "http://10.1.2.3/", False),
        (["127.0.0.1:8080"], "http://[::ffff:127.0.0.1]:8080/", True),
        (["[::1]:8080"], "http://[::1]:8080/", True),
        (["::1"], "http://[::1]/", True),
        (["intranet.example"], "http://intranet.example/", True),
        (["intranet.example"], "http://INTRANET.example./", True),
        (["intranet.example"], "http://other.example/", False),
        (["intranet.example:8443"], "https://intranet.example:8443/", True),
        (["intranet.example:8443"], "https://intranet.example/", False),
        (["public.example:8443"], "https://public.example:8443/", True),
    ],
)
async def test_private_addresses_are_reached_only_where_the_file_says_so(
    allow: list[str], url: str, works: bool
) -> None:
    resolver = Resolver(["10.9.9.9"])
    policy = policy_of(allow_private=allow)
    if works:
        assert (await check(url, policy, resolver)).addresses
    else:
        with pytest.raises(AddressRefused):
            await check(url, policy, resolver)


@pytest.mark.parametrize("text", ["", "a b", "10.0.0.0/99", "http://x/", "127.1", "[::1"])
def test_a_wrong_exemption_is_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        exemption_of(text)
    assert error.value.hint


@pytest.mark.parametrize(
    ("url", "works"),
    [
        ("https://api.example.com/", True),
        ("https://example.com/", False),
        ("https://api.example.com.evil.example/", False),
        ("https://evil.example/api.example.com", False),
    ],
)
async def test_a_list_of_hosts_is_the_only_way_out(url: str, works: bool) -> None:
    policy = policy_of(hosts=["*.example.com"])
    if works:
        assert (await check(url, policy, Resolver(["93.184.216.34"]))).host == "api.example.com"
    else:
        with pytest.raises(AddressRefused, match="allowed hosts"):
            await check(url, policy, Resolver(["93.184.216.34"]))
