"""The fleet at a glance: agents by state, pools with their work."""

from typing import Any

from agent2389.ledger.port import Ledger
from agent2389.ledger.states import AgentState
from agent2389.telemetry.metrics import Metrics


async def summary(ledger: Ledger) -> dict[str, Any]:
    """For /health: counts, and the pools that have work and nobody to do it."""
    agents = [row for row in await ledger.agents() if row.role == "agent"]
    pools = await ledger.pools()
    starved = [pool.pool for pool in pools if pool.queued > 0 and pool.agents == 0]
    states = {state.value: sum(1 for row in agents if row.state is state) for state in AgentState}
    return {
        "agents": {state: count for state, count in states.items() if count},
        "pools": {
            pool.pool: {"agents": pool.agents, "queued": pool.queued, "running": pool.running}
            for pool in pools
            if "." not in pool.pool
        },
        "pools_without_agents": starved,
    }


async def measure(ledger: Ledger, metrics: Metrics) -> None:
    """Bring the ledger's gauges up to date."""
    metrics.fleet_agents.clear()
    metrics.ledger_tasks.clear()
    metrics.ledger_oldest.clear()
    metrics.ledger_jobs.clear()
    for row in await ledger.agents():
        if row.role == "agent":
            metrics.fleet_agents.labels(row.state).inc()
    for pool in await ledger.pools():
        if "." not in pool.pool:
            metrics.ledger_tasks.labels(pool.pool, "queued").set(pool.queued)
            metrics.ledger_tasks.labels(pool.pool, "running").set(pool.running)
            metrics.ledger_oldest.labels(pool.pool).set(pool.oldest_seconds)
    unsent = await ledger.unsent()
    metrics.outbox_pending.set(unsent.pending)
    metrics.outbox_oldest.set(unsent.oldest_seconds)
    for state, count in (await ledger.job_counts()).items():
        metrics.ledger_jobs.labels(state).set(count)
