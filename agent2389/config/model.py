"""The frozen sections of an agent's file, as the rest of the house reads them."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from agent2389.config.rules import Rule

Provider = Literal["openai", "anthropic", "google", "rehearsal"]
RoutingStrategy = Literal["none", "fixed", "rules", "llm", "gatekeeper", "hybrid"]


class Section(BaseModel):
    """A frozen section; unknown keys are reported by the loader with line and suggestion."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ResourceLimits(Section):
    """``[agent.resource_limits]``: tokens of one task, seconds of one task."""

    max_tokens: int | None = Field(default=None, gt=0)
    max_execution_time: float | None = Field(default=None, gt=0)


class AgentSection(Section):
    """``[agent]``: who this process is.

    ``profiles`` is a folder of other ways to work that jobs may name; with ``phases`` the agent plans
    before it acts (toolkit ``todo``).
    """

    id: str
    description: str = ""
    capabilities: tuple[str, ...] = ("general",)
    tenant: str = "default"
    slots: int = Field(default=4, ge=1, le=1000)
    singleton: bool = False
    profiles: Path | None = None
    phases: bool = False
    resource_limits: ResourceLimits = ResourceLimits()


class MqttSection(Section):
    """``[mqtt]``: the broker."""

    broker_url: str = "mqtt://127.0.0.1:1883"
    username: str | None = None
    password: SecretStr | None = None
    heartbeat_interval_secs: int = Field(default=900, ge=1)
    foreign_answer_secs: float = Field(default=600, gt=0)
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    insecure_ok: bool = False


class LedgerSection(Section):
    """``[ledger]``: the record of work; ``listen_url`` is the direct DSN beside a pooled one."""

    database_url: SecretStr | None = None
    listen_url: SecretStr | None = None


class Endpoint(Section):
    """``[llm.endpoints.NAME]``: an endpoint that jobs and ``fallback`` may name.

    ``models`` are further models that a job may ask it for, by their exact names.
    """

    provider: Provider
    model: str
    base_url: str | None = None
    api_key: SecretStr | None = None
    models: tuple[str, ...] = ()
    price_per_million_input_usd: float | None = Field(default=None, ge=0)
    price_per_million_output_usd: float | None = Field(default=None, ge=0)


class LlmSection(Section):
    """``[llm]``: the model this agent thinks with; times in seconds.

    ``fallback`` are names of ``endpoints``, asked in order when the model fails. Longer
    conversations than ``context_tokens`` are shown to the model with old tool results shortened.
    """

    provider: Provider = "openai"
    model: str = "gpt-4o-mini"
    base_url: str | None = None
    api_key: SecretStr | None = None
    api_key_name: str | None = None
    system_prompt: str = ""
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, gt=0)
    context_tokens: int = Field(default=100_000, ge=1000)
    timeout: float = Field(default=180, gt=0)
    stream: bool = False
    first_token_timeout: float = Field(default=60, gt=0)
    max_retries: int = Field(default=3, ge=0, le=20)
    fallback: tuple[str, ...] = ()
    endpoints: dict[str, Endpoint] = {}
    models: tuple[str, ...] = ()
    breaker_failures: int = Field(default=3, ge=1, le=1000)
    breaker_seconds: float = Field(default=30, ge=0)
    price_per_million_input_usd: float | None = Field(default=None, ge=0)
    price_per_million_output_usd: float | None = Field(default=None, ge=0)


class ToolEntry(Section):
    """One entry of ``[tools]``: a required tool under the name the model sees."""

    name: str
    impl: str = "builtin"
    config: dict[str, Any] = {}
    api_key: SecretStr | None = None


class Price(Section):
    """``[prices.models."NAME"]``: USD for a million tokens; ``cached`` absent: as ``input``."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)


class PricesSection(Section):
    """``[prices]``: own prices before the shipped table; what to do with a price nobody knows
    where money is limited: ``refuse`` the call, or count it as ``zero`` and note it.
    """

    unknown: Literal["refuse", "zero"] = "refuse"
    models: dict[str, Price] = {}


class TranscriptsSection(Section):
    """``[transcripts]``: an additional sink beside the ledger, best effort."""

    mongodb_url: SecretStr | None = None
    mongodb_database: str = "agent2389"
    queue: int = Field(default=1000, ge=1, le=100_000)


class ApprovalsSection(Section):
    """``[approvals]``: which calls wait for a person.

    ``unsafe``: calls that act outside the workspace wait once text from outside was read
    (``tainted``), ``always``, or ``never``. ``always`` and ``never`` name single tools.
    """

    unsafe: Literal["tainted", "always", "never"] = "tainted"
    always: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


class BudgetSection(Section):
    """``[budget]``: limits of one task and of the agent's UTC day and month.

    ``on_exhausted``: ``stop`` with the partial answer, go on with the free endpoint
    ``fallback_endpoint`` (one of ``[llm.endpoints]``, when money is used up), or ``escalate``.
    """

    max_cost_per_task: float | None = Field(default=None, ge=0)
    max_tool_calls: int = Field(default=50, ge=0)
    max_iterations: int = Field(default=10, ge=1)
    max_tokens: int | None = Field(default=None, gt=0)
    max_seconds: float | None = Field(default=None, gt=0)
    daily_usd: float | None = Field(default=None, ge=0)
    monthly_usd: float | None = Field(default=None, ge=0)
    on_exhausted: Literal["stop", "fallback", "escalate"] = "stop"
    fallback_endpoint: str | None = None


class RoutingModel(Section):
    """``[routing.llm]``: the model of the routing step; absent keys are those of ``[llm]``."""

    provider: Provider | None = None
    model: str | None = None
    base_url: str | None = None
    api_key: SecretStr | None = None
    temperature: float | None = Field(default=0.1, ge=0, le=2)


class Gatekeeper(Section):
    """``[routing.gatekeeper]``: an HTTP service that decides."""

    url: str
    timeout_ms: int = Field(default=5000, gt=0)
    retry_attempts: int = Field(default=3, ge=0)


class RoutingSection(Section):
    """``[routing]``: who decides where finished work goes."""

    strategy: RoutingStrategy = "none"
    max_iterations: int = Field(default=10, ge=1, le=64)
    policy: Path | None = None
    llm: RoutingModel = RoutingModel()
    gatekeeper: Gatekeeper | None = None
    rules: tuple[Rule, ...] = ()


class WorkerSection(Section):
    """``[worker]``: how long a claim holds without a beat, in seconds; the beat comes three times as often.

    A shorter lease finds a dead owner sooner and forgives less of a slow network.
    """

    lease_seconds: float = Field(default=30, ge=1, le=3600)


class LifecycleSection(Section):
    """``[lifecycle]``. ``on_failure``: when a task's attempts are used up it is ``dead``, or a person is
    asked (``escalate``).
    """

    on_failure: Literal["dead", "escalate"] = "dead"

    drain_timeout_secs: float = Field(default=30, ge=0)


class HealthSection(Section):
    """``[health]``: this process' own HTTP server."""

    port: int | None = Field(default=None, ge=0, le=65535)
    bind: str = "127.0.0.1"
    token: SecretStr | None = None


class LoggingSection(Section):
    """``[logging]``."""

    level: str = "info"
    format: Literal["json", "pretty", "auto"] = "auto"


class NetworkSection(Section):
    """``[network]``: an HTTP or SOCKS proxy that every outbound client honours."""

    proxy: str | None = None


class WebhookSection(Section):
    """Of the ops process: whom to tell which events; ``timeout`` in seconds. No ``url``: nobody.

    By default those that want a person, and those that tell that a job will have no result.
    """

    url: SecretStr | None = None
    secret: SecretStr | None = None
    events: tuple[str, ...] = ("task.escalated", "task.waiting", "job.failed", "job.expired")
    timeout: float = Field(default=10, gt=0, le=60)


class AgentConfiguration(Section):
    """A whole file, secrets resolved. ``sha256`` is that of the file's text."""

    agent: AgentSection
    mqtt: MqttSection = MqttSection()
    ledger: LedgerSection = LedgerSection()
    llm: LlmSection = LlmSection()
    tools: tuple[ToolEntry, ...] = ()
    toolkits: tuple[str, ...] = ()
    toolkit_config: dict[str, dict[str, Any]] = {}
    budget: BudgetSection = BudgetSection()
    approvals: ApprovalsSection = ApprovalsSection()
    prices: PricesSection = PricesSection()
    transcripts: TranscriptsSection = TranscriptsSection()
    routing: RoutingSection = RoutingSection()
    worker: WorkerSection = WorkerSection()
    lifecycle: LifecycleSection = LifecycleSection()
    health: HealthSection = HealthSection()
    logging: LoggingSection = LoggingSection()
    network: NetworkSection = NetworkSection()
    environment: Literal["development", "production"] = "development"
    workspace_root: Path | None = None
    sha256: str = ""
    path: Path | None = None
