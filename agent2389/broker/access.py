"""Who may do what on which topic: one table, from which every broker's access file is made.

The ledger decides what happens to work; this table only keeps strangers and talked-into models
from speaking in somebody else's name. Agents share the board (``open``, ``claims``, ``results``,
``approvals``, presence), because each of them does the mesh's chores: what the broker lost is sent
again, what nobody knows is cleared. What an agent says about itself and what it takes as its own
input is its login's alone.
"""

from collections.abc import Callable
from enum import StrEnum

import msgspec

from agent2389.wire.topics import (
    BROKER_STATISTICS,
    MeshTopics,
    agent_bound,
    conversation,
    conversation_filter,
    protocol_digests,
    protocol_input,
    protocol_progress,
    protocol_status,
)

ANY = "+"
AGENT = "{agent_id}"


class Role(StrEnum):
    """What a login is for."""

    OPS = "ops"
    AGENT = "agent"
    FOREIGN = "foreign"
    PRODUCER = "producer"
    MONITOR = "monitor"
    OPERATOR = "operator"


PURPOSES: dict[Role, str] = {
    Role.OPS: "The mesh's own service: takes work in, does the chores, answers for everybody.",
    Role.AGENT: "Hears its own pools, speaks as itself; takes intake and chores over while no ops lives.",
    Role.FOREIGN: "An agent of another implementation of the 2389 protocol: its own input, its own answers.",
    Role.PRODUCER: "Sends work and reads what came of it; sees no agent, no claim, no doorbell.",
    Role.MONITOR: "Sees everything, the questions included, and changes nothing.",
    Role.OPERATOR: "A person who steers: sees what a monitor sees, cancels jobs, "
    "sends hints to agents, answers questions.",
}


class Reach(StrEnum):
    """Whose topics of a kind a right covers."""

    NONE = "-"
    OWN = "own"
    FOREIGN = "foreign"
    OWN_AND_FOREIGN = "own, foreign"
    ANY = "any"


class Access(msgspec.Struct, frozen=True):
    """What a role may do with one kind of topic."""

    read: Reach = Reach.NONE
    write: Reach = Reach.NONE


NOTHING = Access()
READS = Access(read=Reach.ANY)
WRITES = Access(write=Reach.ANY)
BOTH = Access(read=Reach.ANY, write=Reach.ANY)
READS_OWN = Access(read=Reach.OWN)
WRITES_OWN = Access(write=Reach.OWN)
BOTH_OWN = Access(read=Reach.OWN, write=Reach.OWN)


class Scope(msgspec.Struct, frozen=True):
    """The agents and capabilities that a filter is written for; ``+`` is all of them."""

    agents: tuple[str, ...] = (ANY,)
    capabilities: tuple[str, ...] = (ANY,)


Filters = Callable[[MeshTopics, Scope], tuple[str, ...]]


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of topic, its filters, and what each role may do with it."""

    kind: str
    filters: Filters
    ops: Access = BOTH
    agent: Access = NOTHING
    foreign: Access = NOTHING
    producer: Access = NOTHING
    monitor: Access = READS
    operator: Access = READS

    def of(self, role: Role) -> Access:
        """What ``role`` may do."""
        access: Access = getattr(self, role.value)
        return access


def _pools(scope: Scope) -> tuple[str, ...]:
    """What stands in place of a capability: the pools, and the agents' own names."""
    if ANY in scope.agents:
        return (ANY,)
    return (*scope.capabilities, *(agent_bound(agent) for agent in scope.agents))


def _below(filter_of: Callable[[MeshTopics], str]) -> Filters:
    """Filters of a kind that belongs to nobody in particular."""
    return lambda topics, _: (filter_of(topics),)


def _of_agents(filter_of: Callable[[str], str]) -> Filters:
    """Filters of a protocol kind, one for each agent."""
    return lambda _, scope: tuple(filter_of(agent) for agent in scope.agents)


RULES: tuple[Rule, ...] = (
    Rule(
        kind="jobs/{capability}",
        filters=lambda topics, scope: tuple(topics.bare_job(name) for name in scope.capabilities),
        agent=BOTH_OWN,
        producer=WRITES,
    ),
    Rule(
        kind="jobs/{capability}/{job_id}",
        filters=lambda topics, scope: tuple(topics.job(name, ANY) for name in scope.capabilities),
        agent=BOTH_OWN,
        producer=WRITES,
    ),
    Rule(
        kind="receipts/{job_id}",
        filters=_below(lambda topics: topics.receipt(ANY)),
        agent=WRITES,
        producer=READS,
    ),
    Rule(kind="replies/…", filters=_below(MeshTopics.replies_filter), agent=WRITES, producer=READS),
    Rule(
        kind="cancel/{job_id}",
        filters=_below(MeshTopics.cancel_filter),
        agent=READS,
        producer=WRITES,
        operator=BOTH,
    ),
    Rule(
        kind="wake/{capability}",
        filters=lambda topics, scope: tuple(topics.wake(pool) for pool in _pools(scope)),
        agent=Access(read=Reach.OWN_AND_FOREIGN, write=Reach.ANY),
    ),
    Rule(
        kind="open/{capability}/{task_id}/{epoch}",
        filters=_below(lambda topics: topics.board_filters()[0]),
        agent=BOTH,
    ),
    Rule(
        kind="claims/{task_id}/{epoch}",
        filters=_below(lambda topics: topics.board_filters()[1]),
        agent=BOTH,
    ),
    Rule(kind="results/{job_id}", filters=_below(MeshTopics.result_filter), agent=BOTH, producer=READS),
    Rule(
        kind="events/{job_id}",
        filters=_below(lambda topics: topics.event(ANY)),
        agent=WRITES,
        producer=READS,
    ),
    Rule(
        kind="agents/{agent_id}/{incarnation}/status",
        filters=_below(MeshTopics.presence_filter),
        agent=BOTH,
    ),
    Rule(
        kind="agents/{agent_id}/{incarnation}/probe",
        filters=lambda topics, scope: tuple(topics.probe_filter(agent) for agent in scope.agents),
        agent=BOTH_OWN,
        operator=BOTH,
    ),
    Rule(
        kind="agents/reconcile/{name}/probe",
        filters=_below(lambda topics: topics.reconcile_probe(ANY)),
        agent=BOTH,
        operator=BOTH,
    ),
    Rule(
        kind="control/{agent_id}",
        filters=lambda topics, scope: tuple(topics.control(agent) for agent in scope.agents),
        agent=READS_OWN,
        operator=BOTH,
    ),
    Rule(
        kind="approvals/{approval_id}", filters=_below(lambda topics: topics.approval(ANY)), agent=BOTH
    ),
    Rule(
        kind="approvals/{approval_id}/answer",
        filters=_below(MeshTopics.approval_answer_filter),
        agent=READS,
        operator=BOTH,
    ),
    Rule(kind="mesh", filters=_below(MeshTopics.mesh), agent=READS),
    Rule(kind="neighbours", filters=_below(MeshTopics.neighbours), agent=READS),
    Rule(
        kind=protocol_input(AGENT),
        filters=_of_agents(protocol_input),
        agent=Access(read=Reach.OWN, write=Reach.FOREIGN),
        foreign=Access(read=Reach.OWN, write=Reach.ANY),
        producer=WRITES,
    ),
    Rule(
        kind=protocol_status(AGENT),
        filters=_of_agents(protocol_status),
        agent=Access(read=Reach.ANY, write=Reach.OWN),
        foreign=Access(read=Reach.ANY, write=Reach.OWN),
    ),
    Rule(
        kind=f"{protocol_progress(AGENT)}, tools, llm",
        filters=lambda _, scope: tuple(topic for agent in scope.agents for topic in protocol_digests(agent)),
        ops=READS,
        agent=WRITES_OWN,
        foreign=WRITES_OWN,
    ),
    Rule(
        kind=conversation("{conversation_id}", AGENT),
        filters=_of_agents(conversation_filter),
        agent=Access(read=Reach.FOREIGN, write=Reach.ANY),
        foreign=WRITES_OWN,
        producer=READS,
    ),
    Rule(kind=BROKER_STATISTICS, filters=_below(lambda _: BROKER_STATISTICS), ops=READS),
)


class Identity(msgspec.Struct, frozen=True):
    """One login of the broker. ``scope`` is what it calls its own; roles without own topics ignore it."""

    login: str
    role: Role
    tenant: str = "default"
    scope: Scope = Scope()


class Grant(msgspec.Struct, frozen=True, order=True):
    """One topic filter and what a login may do with it."""

    topic_filter: str
    read: bool
    write: bool

    @property
    def word(self) -> str:
        """Mosquitto's word for it."""
        return "readwrite" if self.read and self.write else "read" if self.read else "write"


def grants(identity: Identity, *, foreign: tuple[str, ...] = ()) -> tuple[Grant, ...]:
    """Every right of a login in the order of the table; ``foreign`` are agents of other implementations."""
    topics = MeshTopics(identity.tenant)
    scopes = {
        Reach.NONE: Scope((), ()),
        Reach.OWN: identity.scope,
        Reach.FOREIGN: Scope(foreign, ()),
        Reach.OWN_AND_FOREIGN: Scope(
            tuple(dict.fromkeys((*identity.scope.agents, *foreign))), identity.scope.capabilities
        ),
        Reach.ANY: Scope(),
    }
    rights: dict[str, tuple[bool, bool]] = {}
    for rule in RULES:
        access = rule.of(identity.role)
        for reach, right in ((access.read, (True, False)), (access.write, (False, True))):
            if reach is Reach.NONE:
                continue
            for topic_filter in rule.filters(topics, scopes[reach]):
                known = rights.get(topic_filter, (False, False))
                rights[topic_filter] = (known[0] or right[0], known[1] or right[1])
    return tuple(Grant(topic_filter, *right) for topic_filter, right in rights.items())
