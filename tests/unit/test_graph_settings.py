"""What the neo4j toolkit says before it reaches any server."""

import socket

import pytest

from agent2389.config.model import AgentConfiguration, AgentSection
from agent2389.errors import ToolFailed
from agent2389.tools.configured import mistakes
from agent2389.tools.graph_rules import GraphSchema, NodeRule, broken_rules
from agent2389.tools.registry import ToolSet


def agent(**settings: object) -> AgentConfiguration:
    return AgentConfiguration(
        agent=AgentSection(id="a"), toolkits=("neo4j",), toolkit_config={"neo4j": settings}
    )


async def reason(configuration: AgentConfiguration) -> str:
    tools = ToolSet(configuration)
    await tools.open()
    await tools.close()
    return tools.skipped["neo4j"]


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NEO4J_URI", "NEO4J_AUTH"):
        monkeypatch.delenv(name, raising=False)


async def test_without_an_address_it_is_skipped() -> None:
    assert await reason(agent()) == "NEO4J_URI is not set"


async def test_a_server_that_is_not_there_is_a_reason() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    assert "does not answer" in await reason(agent(url=f"bolt://127.0.0.1:{port}"))


async def test_a_login_without_a_slash_is_told_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEO4J_AUTH", "canary-7f3a91c2")
    assert await reason(agent(url="bolt://127.0.0.1:1")) == "NEO4J_AUTH is no login"


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"url": "http://127.0.0.1"}, "no address of a graph database"),
        ({"url": "bolt://user:word@127.0.0.1"}, "no address of a graph database"),
        ({"url": "bolt://[::1"}, "no address of a graph database"),
        ({"url": "bolt://h", "max_rows": 0}, "max_rows"),
        ({"url": "bolt://h", "rows": 5}, "unknown key 'rows'"),
        ({"url": "bolt://h", "password": "x"}, "a secret must not stand in the file"),
    ],
)
def test_wrong_settings_are_told(settings: dict[str, object], part: str) -> None:
    assert part in "\n".join(mistakes(agent(**settings)))


async def test_too_many_rules_are_refused() -> None:
    schema = GraphSchema(nodes={f"L{number}": NodeRule(required=("a", "b")) for number in range(51)})

    class Never:
        async def run(self, query: str, parameters: object) -> None:
            raise AssertionError("nothing may be asked")

    with pytest.raises(ToolFailed, match="102 rules"):
        await broken_rules(Never(), schema)
