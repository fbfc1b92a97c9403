"""The neo4j toolkit on a real Neo4j: what it reads, what it refuses, what it writes where it may."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from agent2389.config.model import AgentConfiguration, AgentSection
from agent2389.tools.port import Effect, TaskScope, ToolOutput
from agent2389.tools.registry import ToolSet
from tests.support.real_servers import address_of

Call = Callable[..., Awaitable[ToolOutput]]
FILL = """
CREATE (a:Person {name: 'Ada', born: date('1815-12-10'), at: point({x: 1, y: 2})})
CREATE (b:Person {name: 'Bo', age: 'seven'})
CREATE (c:City {name: 'Turin'})
CREATE (a)-[:LIVES_IN {since: 1840}]->(c), (a)-[:KNOWS]->(b), (c)-[:KNOWS]->(a)
"""


@pytest.fixture
async def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Opens the toolkit with settings; gives how to call its tools, and the set."""
    monkeypatch.setenv("NEO4J_URI", address_of("AGENT2389_TEST_NEO4J_URL"))
    monkeypatch.setenv("NEO4J_AUTH", address_of("AGENT2389_TEST_NEO4J_AUTH"))
    scope = TaskScope(job_id="j", task_id="t", tenant="default", workspace=tmp_path)
    async with AsyncExitStack() as stack:

        async def open_tools(**settings: Any) -> tuple[Call, ToolSet]:
            tools = ToolSet(
                AgentConfiguration(
                    agent=AgentSection(id="a"), toolkits=("neo4j",), toolkit_config={"neo4j": settings}
                )
            )
            await tools.open()
            stack.push_async_callback(tools.close)

            async def call(name: str, **arguments: Any) -> ToolOutput:
                return await tools.call(name, json.dumps(arguments), scope)

            return call, tools

        yield open_tools


@pytest.fixture
async def graph(opened: Callable[..., Any]) -> Call:
    """A filled graph and a toolkit that only reads."""
    write, _ = await opened(read_only=False)
    for query in ("MATCH (n) DETACH DELETE n", FILL):
        output = await write("execute_cypher_query", query=query)
        assert not output.failed, output.text
    read: Call
    read, _ = await opened()
    return read


async def test_rows_are_plain_values(graph: Call) -> None:
    output = await graph(
        "execute_cypher_query",
        query="MATCH p = (a:Person {name: $name})-[r:LIVES_IN]->(c) RETURN a, r, p, 1 / 0.0 AS much, [1, null] AS list",
        parameters={"name": "Ada"},
    )
    assert not output.failed, output.text
    assert output.untrusted
    (row,) = output.data["rows"]
    assert row["a"]["labels"] == ["Person"]
    assert row["a"]["properties"]["born"] == "1815-12-10"
    assert row["a"]["properties"]["at"]["coordinates"] == [1.0, 2.0]
    assert (row["r"]["type"], row["r"]["properties"]) == ("LIVES_IN", {"since": 1840})
    assert row["r"]["from"] == row["a"]["id"]
    assert len(row["p"]["nodes"]) == 2
    assert (row["much"], row["list"]) == ("inf", [1, None])
    json.dumps(output.data)


@pytest.mark.parametrize(
    "query",
    [
        "CREATE (n:Person) RETURN n",
        "MATCH (n) SET n.name = 'x'",
        "MATCH (n) DETACH DELETE n",
        "MERGE (n:Person {name: 'Ada'}) ON MATCH SET n.x = 1",
        "MATCH (n) CALL { WITH n SET n.x = 1 } RETURN 1",
        "MATCH (n) CALL { WITH n SET n.x = 1 } IN TRANSACTIONS RETURN 1",
        "PROFILE CREATE (n:Person)",
        "EXPLAIN CREATE (n:Person)",
        "CYPHER runtime=slotted CREATE (n:Person)",
        "/* RETURN 1 */ CREATE (n:Person)",
        "RETURN 1; CREATE (n:Person)",
        "CREATE INDEX evil FOR (n:Person) ON (n.name)",
        "DROP CONSTRAINT evil IF EXISTS",
        "CREATE USER evil SET PASSWORD 'evil-password'",
        "ALTER CURRENT USER SET PASSWORD FROM 'a' TO 'b'",
        "SHOW USERS",
        "SHOW SETTINGS",
        "SHOW TRANSACTIONS YIELD currentQuery RETURN currentQuery",
        "TERMINATE TRANSACTIONS 'neo4j-transaction-1'",
        "CREATE DATABASE evil",
        "LOAD CSV FROM 'http://127.0.0.1:9/' AS row RETURN row",
        "LOAD CSV FROM 'file:///etc/passwd' AS row RETURN row",
        "MATCH (n) WHERE EXISTS { MATCH (n)-[:KNOWS]->() } LOAD CSV FROM 'file:///x' AS row RETURN row",
        "CALL dbms.listConfig() YIELD name, value RETURN name, value",
        "CALL dbms.killConnection('bolt-1')",
        "CALL db.createLabel('Evil')",
        "CALL db.clearQueryCaches()",
        "UNWIND [1] AS x CALL dbms.listConfig() YIELD name RETURN name",
        "CALL { CALL dbms.components() YIELD name RETURN name } RETURN name",
        "CALL apoc.load.json('http://127.0.0.1/') YIELD value RETURN value",
        "USE system SHOW USERS",
        "MATCH (n",
        "",
    ],
)
async def test_a_reader_changes_nothing_and_reaches_nothing(graph: Call, query: str) -> None:
    before = await graph("execute_cypher_query", query="MATCH (n) RETURN count(n) AS n, count(n.x) AS x")
    output = await graph("execute_cypher_query", query=query)
    assert output.failed or output.data["rows"] == [], output.text
    assert not output.data or not output.data["changes"]
    after = await graph("execute_cypher_query", query="MATCH (n) RETURN count(n) AS n, count(n.x) AS x")
    assert before.data["rows"] == after.data["rows"]


@pytest.mark.parametrize(
    "query",
    [
        "CREATE INDEX evil FOR (n:Person) ON (n.name)",
        "CREATE (n) WITH n LOAD CSV FROM 'file:///etc/passwd' AS row RETURN row",
        "CREATE (n) WITH n CALL dbms.listConfig() YIELD name RETURN name",
        "CREATE USER evil SET PASSWORD 'evil-password'",
    ],
)
async def test_a_writer_does_not_leave_the_data_either(opened: Callable[..., Any], query: str) -> None:
    write, _ = await opened(read_only=False)
    output = await write("execute_cypher_query", query=query)
    assert output.failed
    assert "allowed here" in output.text


async def test_a_writer_writes_and_says_what(opened: Callable[..., Any]) -> None:
    write, tools = await opened(read_only=False)
    output = await write(
        "execute_cypher_query", query="CREATE (n:Sketch {a: $a}) RETURN n.a", parameters={"a": 1}
    )
    assert output.data["changes"]["nodes_created"] == 1
    assert "nodes_created 1" in output.text
    gone = await write("execute_cypher_query", query="MATCH (n:Sketch) DELETE n")
    assert gone.data["changes"]["nodes_deleted"] >= 1
    effects = {name: tool.effect for name, _, tool in tools.offered()}
    assert effects["execute_cypher_query"] is Effect.UNSAFE
    assert effects["get_database_schema"] is Effect.PURE


async def test_more_rows_than_wanted_are_cut_and_said(graph: Call, opened: Callable[..., Any]) -> None:
    few, _ = await opened(max_rows=5)
    output = await few("execute_cypher_query", query="UNWIND range(1, 100000) AS n RETURN n")
    assert [row["n"] for row in output.data["rows"]] == [1, 2, 3, 4, 5]
    assert "more than 5 rows" in output.text
    wide = await few("execute_cypher_query", query="RETURN [n IN range(1, 100000) | n] AS list")
    assert len(wide.data["rows"][0]["list"]) == 1000
    assert len(wide.text) < 3000


async def test_a_query_that_takes_too_long_is_ended_by_the_server(opened: Callable[..., Any]) -> None:
    hasty, _ = await opened(seconds=0.5)
    output = await hasty(
        "execute_cypher_query",
        query="UNWIND range(1, 100000) AS a UNWIND range(1, 100000) AS b RETURN sum(a * b) AS s",
    )
    assert output.failed
    assert "refuses" in output.text or "took longer" in output.text


async def test_the_schema_is_told(graph: Call) -> None:
    output = await graph("get_database_schema")
    assert not output.failed, output.text
    assert {"City", "Person"} <= set(output.data["labels"])
    assert {"KNOWS", "LIVES_IN"} <= set(output.data["relationship types"])
    assert any("Person" in line and ".name String" in line for line in output.data["properties"])


async def test_what_breaks_a_schema_is_counted(graph: Call) -> None:
    rules: dict[str, Any] = {
        "nodes": {"Person": {"required": ["name", "born"], "types": {"age": "INTEGER", "name": "STRING"}}},
        "relationships": {
            "KNOWS": {"from": ["Person"], "to": ["Person"]},
            "LIVES_IN": {"required": ["since"]},
        },
        "closed": True,
    }
    output = await graph("validate_schema_compliance", **rules)
    assert not output.failed, output.text
    found = {item["rule"]: item["count"] for item in output.data["findings"]}
    assert found == {
        "every node has a known label": 1,
        ":Person has born": 1,
        ":Person.age is INTEGER": 1,
        "[:KNOWS] starts at :Person": 1,
    }
    kept = await graph("validate_schema_compliance", nodes={"Person": {"required": ["name"]}})
    assert (kept.text, kept.data["complies"]) == ("the graph complies", True)


async def test_a_label_that_is_cypher_is_only_a_name(graph: Call) -> None:
    hostile = "Person`) DETACH DELETE (n"
    output = await graph("validate_schema_compliance", nodes={hostile: {"required": ["x"]}})
    assert output.data["complies"] is True
    left = await graph("execute_cypher_query", query="MATCH (n) RETURN count(n) AS n")
    assert left.data["rows"] == [{"n": 3}]


async def test_a_wrong_login_is_a_reason(opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEO4J_AUTH", "neo4j/wrong-canary-password")
    _, tools = await opened()
    assert tools.skipped == {"neo4j": "the graph database refuses the login"}
