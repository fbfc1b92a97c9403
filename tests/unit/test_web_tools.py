"""Web tools: what is fetched is text, capped, from checked addresses; secrets go where they belong."""

import json
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent2389.config.model import AgentConfiguration, AgentSection, ToolEntry
from agent2389.tools.addresses import Resolve, resolve_with_system
from agent2389.tools.html_text import read_html
from agent2389.tools.http_request import HttpToolkit
from agent2389.tools.port import Effect, TaskScope, ToolOutput, ToolSettings
from agent2389.tools.registry import ToolSet
from agent2389.tools.web import WebToolkit
from tests.support.waiting import until
from tests.support.web_server import WebServer, web_server

CANARY = "canary-7f3a91c2-key"


@pytest.fixture
async def server() -> AsyncIterator[WebServer]:
    async with web_server() as running:
        yield running


@pytest.fixture
def scope(tmp_path: Path) -> TaskScope:
    return TaskScope(job_id="j", task_id="t", tenant="default", workspace=tmp_path, idempotency_key="key-1")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERPER_API_KEY", "TAVILY_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def agent(server: WebServer, *, entries: Sequence[ToolEntry] = (), **config: Any) -> AgentConfiguration:
    """An agent with web and http that may reach the test's server and nothing else that is private."""
    allowed = {"allow_private": [f"127.0.0.1:{server.port}"]}
    return AgentConfiguration(
        agent=AgentSection(id="a"),
        toolkits=("web", "http"),
        tools=tuple(entries),
        toolkit_config={name: {**allowed, **config.get(name, {})} for name in ("web", "http")},
    )


@asynccontextmanager
async def opened(configuration: AgentConfiguration) -> AsyncIterator[ToolSet]:
    tools = ToolSet(configuration)
    await tools.open()
    try:
        yield tools
    finally:
        await tools.close()


async def fetch(server: WebServer, scope: TaskScope, path: str, **config: Any) -> ToolOutput:
    async with opened(agent(server, web=config)) as tools:
        url = path if path.startswith("http") else server.url + path
        return await tools.call("fetch_url", json.dumps({"url": url}), scope)


async def request(
    server: WebServer, scope: TaskScope, config: dict[str, Any], **arguments: Any
) -> ToolOutput:
    async with opened(agent(server, http=config)) as tools:
        return await tools.call("http_request", json.dumps(arguments), scope)


# fetch_url -----------------------------------------------------------------------


async def test_a_page_is_read_as_text(server: WebServer, scope: TaskScope) -> None:
    output = await fetch(server, scope, "/page")
    assert not output.failed
    assert output.untrusted
    assert "Title: A & B" in output.text
    assert "One two" in output.text
    assert "next (https://example.com/next)" in output.text
    for hidden in ("evil", "p{}", "hidden", "<"):
        assert hidden not in output.text


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/latin", "Größe"),
        ("/odd_charset", "plain"),
        ("/packed", "packed text"),
        ("/deflated", "deflated text"),
        ("/raw_deflated", "raw deflated text"),
        ("/moved?to=/page", "One two"),
    ],
)
async def test_every_honest_form_of_an_answer_is_read(
    server: WebServer, scope: TaskScope, path: str, text: str
) -> None:
    output = await fetch(server, scope, path)
    assert text in output.text
    assert not output.failed


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/binary", "holds no text"),
        ("/untyped", "holds no text"),
        ("/brotli", "packed"),
        ("/broken_gzip", "broke"),
        ("/absent", "Status: 404"),
        ("/loop", "redirects"),
        ("/moved?to=http://10.0.0.1/", "not on the public Internet"),
        ("/moved?to=http://169.254.169.254/latest/meta-data/", "not on the public Internet"),
        ("/moved?to=http://localhost:22/", "port 22"),
        ("/moved?to=http://0x7f.1/", "decimal"),
        ("/moved?to=file:///etc/passwd", "must begin with"),
        ("/moved?to=//user@127.0.0.1/", "user name"),
        ("/moved?to=http://[::1/", "no URL"),
    ],
)
async def test_what_cannot_or_must_not_be_read_is_an_answer(
    server: WebServer, scope: TaskScope, path: str, reason: str
) -> None:
    output = await fetch(server, scope, path)
    assert output.failed
    assert reason in output.text
    assert "Traceback" not in output.text


async def test_a_redirect_to_another_port_of_an_allowed_host_is_refused(scope: TaskScope) -> None:
    async with web_server() as outside, web_server() as inside:
        output = await fetch(outside, scope, f"/moved?to={inside.url}/page")
    assert output.failed
    assert inside.requests == []


async def test_long_text_is_shown_in_parts_and_says_so(server: WebServer, scope: TaskScope) -> None:
    async with opened(agent(server)) as tools:
        first = await tools.call("fetch_url", json.dumps({"url": server.url + "/long"}), scope)
        rest = await tools.call(
            "fetch_url", json.dumps({"url": server.url + "/long", "start": 49_990}), scope
        )
    assert "[cut: characters 0 to 15000 of 50000; go on with start=15000]" in first.text
    assert rest.text.endswith("\n\n0123456789")


@pytest.mark.parametrize("path", ["/endless", "/bomb"])
async def test_an_endless_answer_and_a_bomb_are_cut(server: WebServer, scope: TaskScope, path: str) -> None:
    tracemalloc.start()
    output = await fetch(server, scope, path, max_bytes=200_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "[the document is longer than 200000 bytes; the rest was not read]" in output.text
    assert peak < 16_000_000, "a cut answer must not be unpacked whole"
    if path == "/endless":
        assert await until(server.unfinished.is_set)


@pytest.mark.parametrize("path", ["/slow", "/never"])
async def test_a_slow_answer_is_not_waited_for(server: WebServer, scope: TaskScope, path: str) -> None:
    output = await fetch(server, scope, path, seconds=0.3)
    assert output.failed
    assert "0.3 seconds" in output.text or "too slow" in output.text


async def test_a_closed_port_is_an_answer(server: WebServer, scope: TaskScope) -> None:
    async with web_server() as gone:
        port = gone.port
    output = await fetch(
        server, scope, f"http://127.0.0.1:{port}/", allow_private=["127.0.0.0/8"], ports=[port]
    )
    assert output.failed
    assert "does not accept connections" in output.text


def rebinding(*answers: Sequence[str]) -> Resolve:
    """Another answer at each question, as a hostile name server gives."""
    left = list(answers)

    async def resolve(host: str, port: int) -> Sequence[str]:
        return left.pop(0)

    return resolve


async def test_a_name_that_changes_its_address_reaches_nothing_private(
    server: WebServer, scope: TaskScope
) -> None:
    toolkit = WebToolkit(
        ToolSettings(values={"ports": [server.port]}),
        resolve=rebinding(["127.0.0.1"], ["93.184.216.34", "127.0.0.1"]),
    )
    await toolkit.open()
    (tool,) = toolkit.tools()
    for _ in range(2):
        output = await tool.call({"url": f"http://rebind.example:{server.port}/page"}, scope)
        assert "not on the public Internet" in output.text
    await toolkit.close()
    assert server.requests == []


async def test_the_checked_address_is_the_one_connected_to_under_the_name(
    server: WebServer, scope: TaskScope
) -> None:
    """Resolved once: were the name asked again, the second answer would lead nowhere."""
    toolkit = WebToolkit(
        ToolSettings(values={"allow_private": [f"intranet.example:{server.port}"]}),
        resolve=rebinding(["127.0.0.1"], ["192.0.2.1"]),
    )
    await toolkit.open()
    output = await toolkit.tools()[0].call({"url": f"http://intranet.example:{server.port}/page"}, scope)
    await toolkit.close()
    assert not output.failed
    assert server.requests[0].headers["host"] == f"intranet.example:{server.port}"


async def test_the_next_address_is_tried_when_the_first_does_not_answer(
    server: WebServer, scope: TaskScope
) -> None:
    toolkit = WebToolkit(
        ToolSettings(values={"allow_private": [f"two.example:{server.port}"]}),
        resolve=rebinding(["127.0.0.9", "127.0.0.1"]),
    )
    await toolkit.open()
    output = await toolkit.tools()[0].call({"url": f"http://two.example:{server.port}/page"}, scope)
    await toolkit.close()
    assert not output.failed


# html ----------------------------------------------------------------------------

BROKEN = [
    "<" * 300_000, "<a " * 100_000, "<!--" * 100_000, "<script>" * 50_000, '<p x="' * 50_000, "&" * 300_000,
    "<a href='" * 50_000, "<![CDATA[" * 50_000, "</" * 100_000, "<p =" * 100_000 + " " * 100_000,
    "\n " * 200_000, "<textarea>" + "</textare" * 50_000, "<x" + " a=b" * 100_000, "&#99999999999;" * 10_000,
]  # fmt: skip


@pytest.mark.timeout(10)
@pytest.mark.parametrize("source", BROKEN, ids=range(len(BROKEN)))
def test_broken_html_takes_linear_time(source: str) -> None:
    assert isinstance(read_html(source).text, str)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("", ""),
        ("a < b", "a < b"),
        ("a<b>c", "ac"),
        ('<p title="a>b">x</p>', "x"),
        ("<p title=it's>x</p><p>y", "x\n\ny"),
        ("x<script>1</script>y<style>2</style>z", "xyz"),
        ("x<svg><text>n</text></svg>y", "xy"),
        ("<li>a<li>b", "- a\n- b"),
        ("a<br/>b", "a\nb"),
        ("x<!-- <b> -->y", "xy"),
        ("<a href=javascript:x>t</a>", "t"),
        ("<title>T</title>x", "x"),
        ("a&lt;b&gt;&nbsp;c", "a<b> c"),
        ("<table><tr><td>1<td>2</table>", "| 1 | 2"),
    ],
)
def test_html_becomes_the_text_a_reader_sees(source: str, text: str) -> None:
    assert read_html(source).text == text


# web_search ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("impl", "header", "value"),
    [("serper", "x-api-key", CANARY), ("tavily", "authorization", f"Bearer {CANARY}")],
)
async def test_search_asks_the_configured_service_with_its_key(
    server: WebServer, scope: TaskScope, impl: str, header: str, value: str
) -> None:
    entry = ToolEntry(name="web_search", impl=impl, config={"base_url": server.url}, api_key=CANARY)  # type: ignore[arg-type]
    async with opened(agent(server, entries=[entry])) as tools:
        output = await tools.call("web_search", '{"query": "cats", "count": 3}', scope)
    assert server.requests[0].headers[header] == value
    assert "About cats" in output.text
    assert "https://example.com/1" in output.text
    assert len(output.data) == 3
    assert output.untrusted
    assert CANARY not in output.text + json.dumps(output.data)


@pytest.mark.parametrize("variable", ["SERPER_API_KEY", "TAVILY_API_KEY"])
async def test_the_service_is_the_one_whose_key_is_there(
    server: WebServer, scope: TaskScope, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, CANARY)
    async with opened(agent(server, web={"base_url": server.url})) as tools:
        assert not (await tools.call("web_search", '{"query": "cats"}', scope)).failed
    assert ("x-api-key" in server.requests[0].headers) == (variable == "SERPER_API_KEY")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("status 401", "refuses the key"),
        ("status 403", "refuses the key"),
        ("status 429", "wait 9 seconds"),
        ("status 500", "status 500"),
        ("broken", "no JSON"),
        ("list", "not known"),
    ],
)
@pytest.mark.parametrize("impl", ["serper", "tavily"])
async def test_a_failing_service_is_an_answer_without_the_key(
    server: WebServer, scope: TaskScope, impl: str, query: str, reason: str
) -> None:
    entry = ToolEntry(name="web_search", impl=impl, config={"base_url": server.url}, api_key=CANARY)  # type: ignore[arg-type]
    async with opened(agent(server, entries=[entry])) as tools:
        output = await tools.call("web_search", json.dumps({"query": query}), scope)
    assert output.failed
    assert reason in output.text
    assert CANARY not in output.text


async def test_a_strange_answer_of_the_service_is_no_crash(server: WebServer, scope: TaskScope) -> None:
    entry = ToolEntry(name="web_search", impl="tavily", config={"base_url": server.url}, api_key=CANARY)  # type: ignore[arg-type]
    async with opened(agent(server, entries=[entry])) as tools:
        assert (await tools.call("web_search", '{"query": "strange"}', scope)).text == "nothing found"


async def test_without_a_key_search_is_left_out_with_the_reason(server: WebServer) -> None:
    async with opened(agent(server)) as tools:
        assert {spec.name for spec in tools.specs()} == {"fetch_url", "http_request"}
        assert "SERPER_API_KEY is not set" in tools.skipped["web_search"]
        assert tools.unavailable == {}
    async with opened(agent(server, entries=[ToolEntry(name="web_search", impl="serper")])) as tools:
        assert "SERPER_API_KEY is not set" in tools.unavailable["web_search"]


# http_request --------------------------------------------------------------------


async def test_a_request_carries_method_headers_and_body(server: WebServer, scope: TaskScope) -> None:
    output = await request(
        server, scope, {}, url=server.url + "/echo", method="POST", headers={"X-Mine": "1"}, json={"a": [1]}
    )
    answer = json.loads(output.text.split("\n\n", 1)[1])
    headers = {name.lower(): value for name, value in answer["headers"].items()}
    assert answer["method"] == "POST"
    assert headers["x-mine"] == "1"
    assert headers["content-type"] == "application/json"
    assert json.loads(answer["body"]) == {"a": [1]}
    assert "idempotency-key" not in headers
    assert output.data["status"] == 200
    assert output.untrusted


async def test_a_failed_status_is_a_failed_output_with_the_body(server: WebServer, scope: TaskScope) -> None:
    output = await request(server, scope, {}, url=server.url + "/wait")
    assert output.failed
    assert "Status: 429" in output.text
    assert "retry-after: 7" in output.text
    assert "later" in output.text


async def test_secrets_go_to_their_host_only_and_never_come_back(
    server: WebServer, scope: TaskScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", CANARY)
    async with web_server() as other:
        config = {
            "allow_private": [f"127.0.0.1:{server.port}", f"127.0.0.1:{other.port}"],
            "secrets": {
                f"127.0.0.1:{server.port}": {
                    "headers_env": {"Authorization": "SHOP_TOKEN"},
                    "prefix": "Bearer ",
                }
            },
        }
        own = await request(server, scope, config, url=server.url + "/echo")
        moved = await request(server, scope, config, url=f"{server.url}/moved?to={other.url}/echo")
        await request(server, scope, config, url=other.url + "/echo")
    assert server.requests[0].headers["authorization"] == f"Bearer {CANARY}"
    assert not moved.failed
    assert len(other.requests) == 2
    assert all("authorization" not in asked.headers for asked in other.requests)
    assert "Bearer ********" in own.text
    assert CANARY not in own.text + moved.text


async def test_secrets_do_not_travel_in_plain_text_to_the_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", CANARY)
    toolkit = HttpToolkit(
        ToolSettings(
            values={
                "secrets": {
                    "api.example:80": {"headers_env": {"x-key": "SHOP_TOKEN"}},
                    "api.example": {"headers_env": {"x-key": "SHOP_TOKEN"}},
                }
            }
        ),
        resolve=rebinding(["93.184.216.34"], ["93.184.216.34"]),
    )
    await toolkit.open()
    from agent2389.tools.addresses import AddressPolicy, check

    plain = await check("http://api.example/", AddressPolicy(), rebinding(["93.184.216.34"]))
    safe = await check("https://api.example/", AddressPolicy(), rebinding(["93.184.216.34"]))
    assert toolkit._secrets_for(plain) == {}
    assert toolkit._secrets_for(safe) == {"x-key": CANARY}
    await toolkit.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_body_is_not_sent_a_second_time_by_a_redirect(
    server: WebServer, scope: TaskScope, method: str
) -> None:
    url = f"{server.url}/moved?status=307&to=/echo"
    output = await request(server, scope, {}, url=url, method=method, body="once")
    assert "Status: 307" in output.text
    assert "location: /echo" in output.text
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("config", "effect"),
    [
        ({}, Effect.UNSAFE),
        ({"methods": ["GET", "HEAD"]}, Effect.PURE),
        ({"methods": ["GET", "PUT", "DELETE"]}, Effect.IDEMPOTENT),
        ({"idempotency_header": "Idempotency-Key"}, Effect.KEYED),
    ],
)
async def test_the_effect_is_the_worst_that_the_methods_can_do(
    config: dict[str, Any], effect: Effect
) -> None:
    toolkit = HttpToolkit(ToolSettings(values=config))
    await toolkit.open()
    assert toolkit.tools()[0].effect is effect
    await toolkit.close()


async def test_a_keyed_request_carries_the_tasks_key(server: WebServer, scope: TaskScope) -> None:
    config = {"idempotency_header": "Idempotency-Key"}
    await request(server, scope, config, url=server.url + "/echo", method="POST", body="x")
    await request(server, scope, config, url=server.url + "/echo")
    assert server.requests[0].headers["idempotency-key"] == "key-1"
    assert "idempotency-key" not in server.requests[1].headers


async def test_a_method_that_is_not_listed_is_refused(server: WebServer, scope: TaskScope) -> None:
    output = await request(server, scope, {"methods": ["GET"]}, url=server.url + "/echo", method="DELETE")
    assert output.failed
    assert server.requests == []


# configuration -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toolkit", "values", "part"),
    [
        ("web", {"api_key": "x"}, "must not stand in the file"),
        ("web", {"serach": "serper"}, "unknown key 'serach'"),
        ("web", {"search": "bing"}, "bing"),
        ("web", {"seconds": 0}, "seconds"),
        ("web", {"allow_private": ["10.0.0.0/99"]}, "allow_private"),
        ("web", {"ports": "all"}, "ports"),
        ("http", {"methods": []}, "methods"),
        ("http", {"methods": ["TRACE"]}, "TRACE"),
        ("http", {"secrets": {"a b": {"headers_env": {}}}}, "no host"),
        ("http", {"secrets": {"a.example": {"headers_env": {"a b": "X"}}}}, "header name"),
        ("http", {"secrets": {"a.example": {"headers": {"a": "literal"}}}}, "headers"),
        ("http", {"token": "x"}, "token_env"),
    ],
)
async def test_wrong_settings_are_told(toolkit: str, values: dict[str, Any], part: str) -> None:
    from agent2389.tools.configured import mistakes

    configuration = AgentConfiguration(
        agent=AgentSection(id="a"), toolkits=(toolkit,), toolkit_config={toolkit: values}
    )
    assert part in "\n".join(mistakes(configuration))
    async with opened(configuration) as tools:
        assert part.split("_env", maxsplit=1)[0] in tools.skipped[toolkit]
        assert tools.specs() == ()


def test_the_default_resolver_is_the_systems() -> None:
    assert WebToolkit()._resolve is resolve_with_system


async def test_https_is_checked_against_the_name_and_not_the_address(
    scope: TaskScope, tmp_path: Path
) -> None:
    import ssl

    from agent2389.tools.addresses import policy_of
    from agent2389.tools.guarded_http import FetchFailed, GuardedClient, Outgoing
    from tests.support.certificates import certificate_for

    certificate, key = certificate_for("secure.example", tmp_path)
    from aiohttp import web

    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(certificate, key)
    app = web.Application()

    async def hello(asked: web.Request) -> web.Response:
        return web.Response(text="hello " + asked.host)

    app.router.add_get("/", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=served).start()
    port = runner.addresses[0][1]
    trusting = ssl.create_default_context(cafile=str(certificate))
    client = GuardedClient(
        policy_of(allow_private=[f"127.0.0.1:{port}"]),
        resolve=rebinding(["127.0.0.1"], ["127.0.0.1"]),
        verify=trusting,
    )
    try:
        fetched = await client.fetch(Outgoing(url=f"https://secure.example:{port}/"))
        assert fetched.body == f"hello secure.example:{port}".encode()
        with pytest.raises(FetchFailed):
            await client.fetch(Outgoing(url=f"https://other.example:{port}/"))
    finally:
        await client.close()
        await runner.cleanup()
