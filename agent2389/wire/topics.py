"""Every topic of the mesh and of the 2389 protocol: nobody else writes a slash."""

from typing import Final

import msgspec

from agent2389.wire.names import is_capability, is_identifier

PREFIX: Final = "agent2389/v1"
AGENT_BOUND: Final = "agent."
"""Tasks bound to one agent stand where a capability stands; capabilities have no dot."""
BROKER_STATISTICS: Final = "$SYS/#"
"""What a broker tells about itself."""


class MeshTopics(msgspec.Struct, frozen=True):
    """Topics under ``agent2389/v1/{tenant}/``."""

    tenant: str = "default"

    def _below(self, *levels: str) -> str:
        return "/".join((PREFIX, self.tenant, *levels))

    def job(self, capability: str, job_id: str) -> str:
        """Intake, one topic for each job (may be retained)."""
        return self._below("jobs", capability, job_id)

    def bare_job(self, capability: str) -> str:
        """Intake in one ``mosquitto_pub``: JSON or plain text."""
        return self._below("jobs", capability)

    def intake_filters(self, capability: str = "+") -> tuple[str, str]:
        """What an intake reader subscribes to: the bare and the one-per-job form."""
        return self._below("jobs", capability), self._below("jobs", capability, "+")

    def receipt(self, job_id: str | None) -> str:
        """The answer to a submission; ``unknown`` when no id could be read."""
        return self._below("receipts", job_id or "unknown")

    def replies(self) -> str:
        """Prefix under which a ``reply_to`` must lie."""
        return self._below("replies") + "/"

    def cancel(self, job_id: str) -> str:
        """A producer cancels its job here."""
        return self._below("cancel", job_id)

    def cancel_filter(self) -> str:
        """All cancellations."""
        return self._below("cancel", "+")

    def wake(self, capability: str) -> str:
        """The doorbell of one pool, or of one agent through ``agent_bound``."""
        return self._below("wake", capability)

    def open(self, capability: str, task_id: str, epoch: int) -> str:
        """Board: a waiting task."""
        return self._below("open", capability, task_id, str(epoch))

    def claim(self, task_id: str, epoch: int) -> str:
        """Board: who works on a task."""
        return self._below("claims", task_id, str(epoch))

    def result(self, job_id: str) -> str:
        """Board: the one terminal payload of a job."""
        return self._below("results", job_id)

    def board_filters(self) -> tuple[str, str, str]:
        """Everything of the board: what waits, who has it, results."""
        return self._below("open", "+", "+", "+"), self._below("claims", "+", "+"), self.result_filter()

    def result_filter(self) -> str:
        """All results."""
        return self._below("results", "+")

    def event(self, job_id: str) -> str:
        """State changes, routing decisions and progress of one job."""
        return self._below("events", job_id)

    def presence(self, agent_id: str, incarnation: str) -> str:
        """Presence of one process (retained, no will here)."""
        return self._below("agents", agent_id, incarnation, "status")

    def presence_filter(self) -> str:
        """Presence of every process."""
        return self._below("agents", "+", "+", "status")

    def presence_of(self, topic: str) -> tuple[str, str]:
        """Agent id and incarnation in a presence topic."""
        agent_id, incarnation, _ = topic.rsplit("/", 3)[1:]
        return agent_id, incarnation

    def probe(self, agent_id: str, incarnation: str) -> str:
        """Self-test of one process with a nonce."""
        return self._below("agents", agent_id, incarnation, "probe")

    def reconcile_probe(self, name: str) -> str:
        """Where whoever compares board and broker hears itself after what the broker retains."""
        return self.probe("reconcile", name)

    def control(self, agent_id: str) -> str:
        """Hints from an operator; the truth is the ledger's."""
        return self._below("control", agent_id)

    def approval(self, approval_id: str) -> str:
        """Board: a question for a person."""
        return self._below("approvals", approval_id)

    def approval_answer(self, approval_id: str) -> str:
        """A person answers a question here."""
        return self._below("approvals", approval_id, "answer")

    def approval_answer_filter(self) -> str:
        """All answers."""
        return self._below("approvals", "+", "answer")

    def everything_filter(self) -> str:
        """Filter of all topics of the tenant."""
        return self._below("#")

    def neighbours(self) -> str:
        """Which agents of others are on the broker (retained)."""
        return self._below("neighbours")

    def mesh(self) -> str:
        """Which ledger this tenant belongs to (retained)."""
        return self._below("mesh")

    def replies_filter(self) -> str:
        """All receipts on topics that producers chose."""
        return self._below("replies", "#")

    def probe_filter(self, agent_id: str = "+") -> str:
        """Self-tests of every process, or of one agent's."""
        return self._below("agents", agent_id, "+", "probe")


class JobTopic(msgspec.Struct, frozen=True):
    """What an intake topic says: the capability as written and the job id of the long form."""

    capability: str
    job_id: str | None


def agent_bound(agent_id: str) -> str:
    """The name that stands in place of a capability for tasks of one agent."""
    return AGENT_BOUND + agent_id


def parse_job_topic(topic: str, tenant: str) -> JobTopic | None:
    """Read an intake topic; ``None`` when it is not one of this tenant's."""
    levels = topic.split("/")
    if levels[:4] != [*PREFIX.split("/"), tenant, "jobs"] or len(levels) not in (5, 6):
        return None
    capability = levels[4].lower()
    job_id = levels[5] if len(levels) == 6 else None
    if not is_capability(capability) or (job_id is not None and not is_identifier(job_id)):
        return None
    return JobTopic(capability, job_id)


def parse_last_level(topic: str) -> str:
    """The id in the last level of ``cancel/…``, ``results/…``, ``control/…``."""
    return topic.rpartition("/")[2]


def parse_approval_answer(topic: str) -> str:
    """The approval id in ``approvals/{id}/answer``."""
    return topic.split("/")[-2]


def canonical_topic(topic: str) -> str:
    """FR-006: one leading slash, no trailing slash, runs collapsed."""
    return "/" + "/".join(level for level in topic.split("/") if level)


def protocol_input(agent_id: str) -> str:
    """Where a 2389 agent takes task envelopes."""
    return f"/control/agents/{agent_id}/input"


def protocol_input_filter() -> str:
    """Input of every agent (the leading slash is a real level)."""
    return "/control/agents/+/input"


def protocol_status(agent_id: str) -> str:
    """A 2389 agent's retained status and will."""
    return f"/control/agents/{agent_id}/status"


def protocol_status_filter() -> str:
    """Status of every agent."""
    return "/control/agents/+/status"


def protocol_progress(agent_id: str) -> str:
    """Digests of what a 2389 agent is doing."""
    return f"/control/agents/{agent_id}/progress"


def protocol_digests(agent_id: str) -> tuple[str, str, str]:
    """Progress, tools and model calls of a 2389 agent, as digests."""
    below = f"/control/agents/{agent_id}"
    return protocol_progress(agent_id), f"{below}/tools", f"{below}/llm"


def conversation(conversation_id: str, agent_id: str) -> str:
    """Where a 2389 agent answers."""
    return f"/conversations/{conversation_id}/{agent_id}"


def conversation_filter(agent_id: str = "+") -> str:
    """What one agent says in any conversation, or what every agent says."""
    return conversation("+", agent_id)


def protocol_topics_filter() -> str:
    """Everything that 2389 agents say and get outside conversations."""
    return "/control/agents/#"


def conversation_replies(conversation_id: str) -> str:
    """What any agent says in one conversation."""
    return conversation(conversation_id, "+")


def parse_conversation_agent(topic: str) -> str | None:
    """The agent id in ``/conversations/{conversation_id}/{agent_id}``, else ``None``."""
    levels = topic.split("/")
    return levels[3] if levels[:2] == ["", "conversations"] and len(levels) == 4 else None


def parse_protocol_agent(topic: str) -> str | None:
    """The agent id in ``/control/agents/{agent_id}/…`` after canonicalisation, else ``None``."""
    levels = canonical_topic(topic).split("/")
    if levels[:3] == ["", "control", "agents"] and len(levels) >= 4 and is_identifier(levels[3]):
        return levels[3]
    return None
