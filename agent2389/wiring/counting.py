"""An observer that counts what a worker reports."""

from agent2389.agent.parts import Observer
from agent2389.ledger.records import Usage
from agent2389.telemetry.metrics import Metrics


class CountingObserver(Observer):
    """Turns reports into metrics of one agent."""

    def __init__(self, metrics: Metrics, agent_id: str) -> None:
        self._metrics = metrics
        self._agent_id = agent_id

    def claimed(self, outcome: str) -> None:
        """One claim."""
        self._metrics.claims.labels(outcome).inc()

    def finished(self, outcome: str, seconds: float) -> None:
        """One task ended."""
        self._metrics.tasks.labels(self._agent_id, outcome).inc()
        self._metrics.task_seconds.labels(self._agent_id, outcome).observe(seconds)

    def model_called(self, provider: str, model: str, usage: Usage, seconds: float, failed: bool) -> None:
        """One model call."""
        metrics = self._metrics
        metrics.llm_requests.labels(provider, model, "failed" if failed else "ok").inc()
        metrics.llm_seconds.labels(provider, model).observe(seconds)
        metrics.llm_tokens.labels(provider, model, "input").inc(usage.input_tokens)
        metrics.llm_tokens.labels(provider, model, "output").inc(usage.output_tokens)
        metrics.llm_cost.labels(provider, model).inc(usage.cost_usd or 0.0)

    def tool_called(self, tool: str, seconds: float, failed: bool) -> None:
        """One tool call."""
        known = tool if tool.isidentifier() and len(tool) <= 64 else "other"
        self._metrics.tool_calls.labels(known, "failed" if failed else "ok").inc()
        self._metrics.tool_seconds.labels(known).observe(seconds)

    def routed(self, decision: str, strategy: str) -> None:
        """One routing decision."""
        self._metrics.routing.labels(decision, strategy).inc()
