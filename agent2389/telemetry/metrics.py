"""Prometheus metrics of one process: closed label sets, base units, no ids as labels."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
JOB = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400)
LLM = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84)


class Metrics:
    """All collectors of a process on a registry of their own."""

    def __init__(self, version: str) -> None:
        self.registry = registry = CollectorRegistry()

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"agent2389_{name}", text, labels, registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"agent2389_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"agent2389_{name}", text, labels, buckets=buckets, registry=registry)

        gauge("build_info", "Version of this process.", "version").labels(version).set(1)
        self.agent_ready = gauge("agent_ready", "1 while the agent can take work.", "agent")
        self.agent_slots = gauge("agent_slots", "Tasks the agent works on at once.", "agent")
        self.agent_slots_busy = gauge("agent_slots_busy", "Tasks in work.", "agent")
        self.task_running = gauge("task_running", "1 while a task is in work.", "agent")
        self.tasks = counter("tasks", "Tasks ended on this process.", "agent", "outcome")
        self.task_seconds = histogram("task_processing_seconds", "One hop.", JOB, "agent", "outcome")
        self.claims = counter("claims", "Claims by outcome.", "outcome")
        self.submitted = counter("jobs_submitted", "Jobs accepted by this process.", "source")
        self.dropped = counter("messages_dropped", "Messages refused or ignored.", "reason")
        self.routing = counter("routing_decisions", "Routing decisions.", "decision", "strategy")
        self.llm_requests = counter("llm_requests", "Model calls.", "provider", "model", "outcome")
        self.llm_seconds = histogram("llm_request_duration_seconds", "Model calls.", LLM, "provider", "model")
        self.llm_tokens = counter("llm_tokens", "Tokens.", "provider", "model", "type")
        self.llm_cost = counter("llm_cost_usd", "Money.", "provider", "model")
        self.llm_resting = gauge("llm_endpoint_resting", "1 while left alone after failures.", "endpoint")
        self.tool_calls = counter("tool_calls", "Tool calls.", "tool", "outcome")
        self.tool_seconds = histogram("tool_duration_seconds", "Tool calls.", LLM, "tool")
        self.mqtt_connected = gauge("mqtt_connected", "1 while connected to the broker.")
        self.webhook_events = counter("webhook_events", "Events told by webhook: each try.", "outcome")
        self.http_requests = counter("http_requests", "HTTP requests.", "method", "route", "status")
        self.http_seconds = histogram("http_request_duration_seconds", "HTTP requests.", FAST, "route")
        self.fleet_agents = gauge("fleet_agents", "Incarnations by state.", "state")
        self.ledger_tasks = gauge("ledger_tasks", "Open tasks of a pool.", "pool", "state")
        self.ledger_oldest = gauge("ledger_oldest_queued_seconds", "Age of the oldest due task.", "pool")
        self.outbox_pending = gauge("outbox_pending", "Deliveries committed and not sent yet.")
        self.outbox_oldest = gauge("outbox_oldest_age_seconds", "Age of the oldest of them.")
        self.ledger_jobs = gauge("ledger_jobs", "Jobs by state (ended ones of a day).", "state")

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)
