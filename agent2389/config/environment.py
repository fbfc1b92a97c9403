"""The one table of environment names: which key each of them sets."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from agent2389.errors import ConfigurationError


class Variable(msgspec.Struct, frozen=True):
    """``name`` sets the dotted ``key``; every secret also works as ``NAME_FILE``."""

    name: str
    key: str
    meaning: str
    secret: bool = False


VARIABLES: tuple[Variable, ...] = (
    Variable("MQTT_BROKER_URL", "mqtt.broker_url", "broker address"),
    Variable("MQTT_USERNAME", "mqtt.username", "broker user"),
    Variable("MQTT_PASSWORD", "mqtt.password", "broker password", secret=True),
    Variable("DATABASE_URL", "ledger.database_url", "Postgres DSN of the ledger", secret=True),
    Variable("AGENT2389_LISTEN_URL", "ledger.listen_url", "direct DSN beside a pooled one", secret=True),
    Variable("MONGODB_URL", "transcripts.mongodb_url", "optional transcript sink", secret=True),
    Variable("LLM_BASE_URL", "llm.base_url", "OpenAI-compatible endpoint"),
    Variable("TOOLKITS", "toolkits", "comma-separated toolkits"),
    Variable("AGENT_CONFIG", "process.config", "agent file, as CONFIG_PATH"),
    Variable("CONFIG_PATH", "process.config", "agent file that `run` loads"),
    Variable("WORKSPACE_ROOT", "workspace_root", "where task workspaces live"),
    Variable("HEALTH_PORT", "health.port", "port of the process' HTTP server, 0 = any free one"),
    Variable("AGENT2389_BIND", "health.bind", "address the HTTP server listens on"),
    Variable("AGENT2389_TOKEN", "health.token", "bearer token of the API", secret=True),
    Variable("MANAGER_TOKEN", "process.manager_token", "token of /api/agent-services", secret=True),
    Variable("LOG_LEVEL", "logging.level", "debug, info, warning, error"),
    Variable("RUST_LOG", "logging.level", "read when LOG_LEVEL is absent"),
    Variable("LOG_FORMAT", "logging.format", "json, pretty or auto"),
    Variable(
        "TASK_ACK_TIMEOUT_SECONDS",
        "ledger.ack_timeout_seconds",
        "accepted, without effect: a claim is its own acknowledgement",
    ),
    Variable(
        "TASK_MAX_RETRIES", "ledger.max_attempts", "accepted, without effect: the ledger gives 3 attempts"
    ),
    Variable("AGENT2389_TENANT", "agent.tenant", "tenant of this process"),
    Variable("AGENT2389_INSECURE_OK", "mqtt.insecure_ok", "1 allows mqtt:// beyond loopback"),
    Variable(
        "AGENT2389_FOREIGN_ANSWER_SECONDS",
        "mqtt.foreign_answer_secs",
        "seconds a foreign agent may take for an answer",
    ),
    Variable("AGENT2389_CA_FILE", "mqtt.ca_file", "CA of the broker's certificate"),
    Variable("AGENT2389_CLIENT_CERT", "mqtt.client_cert", "own certificate for the broker"),
    Variable("AGENT2389_CLIENT_KEY", "mqtt.client_key", "its key, when it lies in a file of its own"),
    Variable("AGENT2389_ENVIRONMENT", "environment", "development or production"),
    Variable("AGENT2389_WEBHOOK_URL", "webhook.url", "where ops tells events to, http(s)", secret=True),
    Variable("AGENT2389_WEBHOOK_SECRET", "webhook.secret", "what ops signs them with", secret=True),
    Variable(
        "AGENT2389_WEBHOOK_EVENTS",
        "webhook.events",
        "comma-separated types of events; absent: those that want a person or tell of a failed job",
    ),
    Variable("AGENT2389_WEBHOOK_TIMEOUT", "webhook.timeout", "seconds for one try, at most 60; absent: 10"),
    Variable("AGENT2389_PROXY", "network.proxy", "HTTP or SOCKS proxy of outbound calls"),
    Variable("AGENT2389_LLM_PROVIDER", "process.llm_provider", "provider of the shipped agents"),
    Variable("AGENT2389_LLM_MODEL", "process.llm_model", "model of the shipped agents"),
    Variable("AGENT2389_API", "process.api", "address of the ops service"),
    Variable("API_URL", "process.api", "read when AGENT2389_API is absent"),
    Variable("AGENT2389_DATA", "process.data", "data folder of `up`"),
    Variable("OPENAI_API_KEY", "llm.api_key", "key of provider openai", secret=True),
    Variable("ANTHROPIC_API_KEY", "llm.api_key", "key of provider anthropic", secret=True),
    Variable("GOOGLE_API_KEY", "llm.api_key", "key of provider google", secret=True),
    Variable("SERPER_API_KEY", "tools.web_search", "key of web search by Serper", secret=True),
    Variable("TAVILY_API_KEY", "tools.web_search", "key of web search by Tavily", secret=True),
    Variable("NEO4J_URI", "tools.neo4j", "graph database of the toolkit neo4j"),
    Variable("NEO4J_AUTH", "tools.neo4j", "its login, user/password", secret=True),
    Variable("AGENT_REPLICAS", "compose.agent", "how many generic agents docker-compose.yml runs"),
)

PROVIDER_KEYS = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "google": "GOOGLE_API_KEY",
}

OVERRIDES: tuple[Variable, ...] = tuple(
    variable
    for variable in VARIABLES
    if variable.key.split(".")[0]
    in {
        "mqtt",
        "ledger",
        "toolkits",
        "workspace_root",
        "health",
        "logging",
        "agent",
        "environment",
        "network",
        "transcripts",
    }
    or variable.key == "llm.base_url"
)
"""Variables that set a key of the agent file directly."""


def read_variable(environ: Mapping[str, str], name: str) -> str | None:
    """The value of ``name``, or the content of the file that ``NAME_FILE`` names; empty is unset.

    Raises ``ConfigurationError`` when that file cannot be read.
    """
    if value := environ.get(name):
        return value
    if path := environ.get(f"{name}_FILE"):
        try:
            return Path(path).read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise ConfigurationError(
                f"{name}_FILE names {path}, which cannot be read: {reason}",
                hint=f"make the file readable or set {name}",
            ) from None
    return None
