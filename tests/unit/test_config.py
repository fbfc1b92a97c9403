"""Configuration: every form loads, every problem is told at once, no secret is shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent2389.config.environment import VARIABLES
from agent2389.config.load import load_agent, require_key
from agent2389.config.process import load_process
from agent2389.config.show import MASK, schema, shown
from agent2389.errors import ConfigurationError
from tests.support.structure import ROOT

EXAMPLE = ROOT / "tests" / "support" / "researcher-agent.toml"


def load(tmp_path: Path, text: str, environ: dict[str, str] | None = None, **overrides: Any) -> Any:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return load_agent(path, environ=environ or {}, overrides=overrides)


def problems(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as error:
        load(tmp_path, text, environ)
    assert error.value.exit_code == 3
    return "\n".join(error.value.problems)


def test_the_published_example_loads_unchanged() -> None:
    environ = {
        "MQTT_BROKER_URL": "mqtt://broker:1883",
        "OPENAI_API_KEY": "sk-test-123456",
        "SERPER_API_KEY": "x",
    }
    configuration = load_agent(EXAMPLE, environ=environ).configuration
    assert configuration.agent.capabilities == ("research", "web_search", "summarization")
    assert configuration.mqtt.broker_url == "mqtt://broker:1883"
    assert {tool.name: tool.impl for tool in configuration.tools} == {
        "web_search": "serper",
        "http_request": "builtin",
    }
    assert (configuration.budget.max_cost_per_task, configuration.budget.max_iterations) == (1.0, 10)
    assert (configuration.routing.strategy, configuration.routing.llm.temperature) == ("llm", 0.1)


AGENT = '[agent]\nid = "a"\n'


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        ('[tools]\necho = "builtin"', [("echo", "builtin", {})]),
        ('[tools]\necho = { impl = "builtin", config = { a = 1 } }', [("echo", "builtin", {"a": 1})]),
        ('[tools.echo]\nimpl = "x"\n[tools.echo.config]\na = 1', [("echo", "x", {"a": 1})]),
        ('[[tools]]\nname = "echo"\nimplementation = "builtin"', [("echo", "builtin", {})]),
    ],
)
def test_every_form_of_tools_loads(tmp_path: Path, tools: str, expected: list[object]) -> None:
    entries = load(tmp_path, AGENT + tools).configuration.tools
    assert [(entry.name, entry.impl, entry.config) for entry in entries] == expected


@pytest.mark.parametrize(
    ("model", "provider"),
    [("claude-x", "anthropic"), ("gemini-x", "google"), ("gpt-x", "openai"), ("q", "openai")],
)
def test_the_provider_is_guessed_from_the_model(tmp_path: Path, model: str, provider: str) -> None:
    assert load(tmp_path, f'{AGENT}[llm]\nmodel = "{model}"').configuration.llm.provider == provider


BAD = {
    "no agent": ("[mqtt]\n", "agent: the table [agent]"),
    "bad id": ('[agent]\nid = "a/b"', "agent.toml:2: agent.id"),
    "id of wrong type": ("[agent]\nid = 5", "agent.id"),
    "unknown key": (AGENT + 'capabilites = ["x"]', 'did you mean "capabilities"?'),
    "unknown table": (AGENT + "[lmm]\n", "lmm: unknown key"),
    "bad capability": (AGENT + 'capabilities = ["a/b"]', "agent.capabilities"),
    "unknown provider": (AGENT + '[llm]\nprovider = "opanai"', 'did you mean "openai"?'),
    "literal key": (AGENT + '[llm]\napi_key = "sk-abcdef123456"', "a secret must not stand in the file"),
    "literal password": (AGENT + '[mqtt]\npassword = "hunter22"', "password_env"),
    "literal token": (AGENT + '[health]\ntoken = "hunter22"', "token_env"),
    "unset variable": (
        AGENT + '[mqtt]\nbroker_url = "${NOT_SET}"',
        "environment variable NOT_SET is not set",
    ),
    "zero iterations": (AGENT + "[budget]\nmax_iterations = 0", "budget.max_iterations"),
    "negative budget": (AGENT + "[budget]\nmax_cost_per_task = -1", "budget.max_cost_per_task"),
    "text for a number": (AGENT + '[budget]\nmax_tokens = "many"', "budget.max_tokens"),
    "temperature": (AGENT + "[llm]\ntemperature = 9", "llm.temperature"),
    "unknown strategy": (AGENT + '[routing]\nstrategy = "guess"', "routing.strategy"),
    "slots": (AGENT + "slots = 0", "agent.slots"),
    "port": (AGENT + "[health]\nport = 70000", "health.port"),
    "not TOML": (AGENT + "[llm\n", "not TOML"),
    "key twice": (AGENT + 'id = "b"', "not TOML"),
    "missing prompt file": (AGENT + '[llm]\nprompt_file = "none.md"', "llm.prompt_file"),
    "missing secret file": (AGENT + '[llm]\napi_key_file = "none.key"', "llm.api_key_file"),
    "tools of wrong type": ("tools = 5\n" + AGENT, "tools"),
    "table of wrong type": ("llm = 5\n" + AGENT, "write [llm]"),
    "rule of wrong type": (AGENT + "[routing]\nrules = 5", "routing.rules"),
    "format": (AGENT + '[logging]\nformat = "xml"', "logging.format"),
    "environment": ('environment = "moon"\n' + AGENT, "environment"),
    "heartbeat": (AGENT + "[mqtt]\nheartbeat_interval_secs = 0", "heartbeat_interval_secs"),
    "endpoint": (AGENT + '[llm.endpoints.x]\nprovider = "nobody"', "unknown provider"),
    "tool name": (AGENT + '[tools]\n"a b" = "builtin"', "a tool needs a name"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_file_is_told_by_place_and_reason(tmp_path: Path, name: str) -> None:
    text, expected = BAD[name]
    assert expected in problems(tmp_path, text)


def test_all_problems_come_at_once_and_without_secrets(tmp_path: Path) -> None:
    text = '[agent]\nid = "a/b"\n[llm]\nprovider = "opanai"\napi_key = "sk-canary-12345"\n[budget]\nmax_tokens = -1\n'
    told = problems(tmp_path, text)
    for line in ("agent.toml:2", "agent.toml:4", "agent.toml:5", "agent.toml:7"):
        assert line in told
    assert "sk-canary-12345" not in told


def test_flag_beats_environment_beats_file(tmp_path: Path) -> None:
    text = AGENT + '[mqtt]\nbroker_url = "mqtt://file:1"'
    environ = {"MQTT_BROKER_URL": "mqtt://environment:1"}
    assert load(tmp_path, text).configuration.mqtt.broker_url == "mqtt://file:1"
    loaded = load(tmp_path, text, environ)
    assert loaded.configuration.mqtt.broker_url == "mqtt://environment:1"
    assert loaded.origins["mqtt.broker_url"] == "environment MQTT_BROKER_URL"
    flagged = load(tmp_path, text, environ, **{"mqtt.broker_url": "mqtt://flag:1"})
    assert (flagged.configuration.mqtt.broker_url, flagged.origins["mqtt.broker_url"]) == (
        "mqtt://flag:1",
        "flag",
    )


def test_secrets_come_from_files_and_are_masked(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-from-a-file\n")
    environ = {"OPENAI_API_KEY_FILE": str(tmp_path / "key"), "MQTT_PASSWORD": "pass-word-1"}
    text = AGENT + '[mqtt]\npassword_env = "MQTT_PASSWORD"\n[llm]\nmodel = "gpt-x"'
    loaded = load(tmp_path, text, environ)
    assert loaded.configuration.llm.api_key.get_secret_value() == "sk-from-a-file"
    rows = {key: value for key, value, _ in shown(loaded)}
    assert rows["llm.api_key"] == rows["mqtt.password"] == MASK
    assert "pass-word-1" not in json.dumps(list(rows.values()))
    require_key(loaded)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    loaded = load(tmp_path, AGENT + '[llm]\nmodel = "gpt-x"\napi_key_env = "MY_KEY"')
    with pytest.raises(ConfigurationError, match="MY_KEY"):
        require_key(loaded)


def test_the_annotated_example_shows_every_section() -> None:
    loaded = load_agent(ROOT / "agents" / "examples" / "annotated.toml", environ={})
    assert loaded.configuration.agent.id == "annotated"
    text = (ROOT / "agents" / "examples" / "annotated.toml").read_text()
    for section in schema()["properties"]:
        if section not in ("network", "toolkit_config"):
            assert section in text


def test_every_name_of_the_table_is_read_without_complaint() -> None:
    """Names that other rooms read, or nobody any more, must not break a file that loads."""
    values = {
        "AGENT2389_INSECURE_OK": "1",
        "AGENT2389_ENVIRONMENT": "production",
        "AGENT2389_FOREIGN_ANSWER_SECONDS": "60",
        "AGENT2389_WEBHOOK_TIMEOUT": "5",
        "HEALTH_PORT": "0",
        "LOG_FORMAT": "json",
        "MQTT_BROKER_URL": "mqtts://broker.example",
    }
    environ = {variable.name: values.get(variable.name, "value") for variable in VARIABLES}
    path = ROOT / "agents" / "examples" / "annotated.toml"
    found = load_agent(path, environ=environ).configuration
    assert found.mqtt.client_key == Path("value")
    assert (found.mqtt.broker_url, found.health.port) == ("mqtts://broker.example", 0)
    process = load_process(environ)
    assert (process.api, process.mqtt.insecure_ok) == ("value", True)
    assert load_process({"API_URL": "http://127.0.0.1:1"}).api == "http://127.0.0.1:1"
    assert load_process({"API_URL": "x", "AGENT2389_API": "y"}).api == "y"


def test_the_table_of_names_is_complete() -> None:
    names = {variable.name for variable in VARIABLES}
    assert len(names) == len(VARIABLES)
    assert {
        *("MQTT_BROKER_URL", "MQTT_USERNAME", "MQTT_PASSWORD", "DATABASE_URL", "MONGODB_URL", "LLM_BASE_URL"),
        *(
            "TOOLKITS",
            "AGENT_CONFIG",
            "CONFIG_PATH",
            "WORKSPACE_ROOT",
            "HEALTH_PORT",
            "LOG_LEVEL",
            "LOG_FORMAT",
        ),
        *("RUST_LOG", "TASK_ACK_TIMEOUT_SECONDS", "TASK_MAX_RETRIES", "MANAGER_TOKEN", "OPENAI_API_KEY"),
        *(
            "ANTHROPIC_API_KEY",
            "GOOGLE_API_KEY",
            "SERPER_API_KEY",
            "TAVILY_API_KEY",
            "NEO4J_URI",
            "NEO4J_AUTH",
        ),
        *("API_URL", "AGENT_REPLICAS"),
    } <= names
