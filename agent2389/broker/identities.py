"""The logins that a broker needs for a set of agent files."""

from collections.abc import Iterable, Sequence

import msgspec

from agent2389.broker.access import Identity, Role, Scope
from agent2389.config.model import AgentConfiguration
from agent2389.errors import ConfigurationError
from agent2389.wire.names import is_identifier

SERVICES = (Role.OPS, Role.PRODUCER, Role.MONITOR, Role.OPERATOR)
DEFAULT_TENANT = "default"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for besides the agents' files.

    ``tenant`` gets logins even without an agent; ``shared`` gives all agents of a tenant the one login
    ``agent``; ``foreign`` are ids of agents of other implementations; ``producers`` are names of
    producers' logins.
    """

    tenant: str = DEFAULT_TENANT
    shared: bool = False
    foreign: tuple[str, ...] = ()
    producers: tuple[str, ...] = ()


def identities(agents: Sequence[AgentConfiguration], wanted: Wanted) -> tuple[Identity, ...]:
    """All logins: services, producers, agents, foreign agents, tenant after tenant.

    An agent logs in by ``mqtt.username`` of its file, else by its id; files with the same login share
    its rights. Logins of tenants other than ``default`` begin with the tenant's name and a dot.
    Raises ``ConfigurationError`` for two meanings of one login.
    """
    made: dict[str, Identity] = {}
    problems: list[str] = []
    for identity in _all(agents, wanted):
        known = made.get(identity.login)
        if not is_identifier(identity.login):
            problems.append(f"{identity.login!r} cannot be a login: use letters, digits, '.', '_' and '-'")
        elif known is None:
            made[identity.login] = identity
        elif (known.role, known.tenant) == (identity.role, identity.tenant):
            made[identity.login] = Identity(
                known.login, known.role, known.tenant, _joined(known.scope, identity.scope)
            )
        else:
            problems.append(
                f"login {identity.login}: {_described(known)} and {_described(identity)} cannot share it"
            )
    if problems:
        raise ConfigurationError(
            "the broker's logins are not clear",
            problems=problems,
            hint="give the agent another id, or a login of its own: [mqtt] username",
        )
    return tuple(made.values())


def _all(agents: Sequence[AgentConfiguration], wanted: Wanted) -> Iterable[Identity]:
    tenants = dict.fromkeys((wanted.tenant, *(file.agent.tenant for file in agents)))
    for tenant in tenants:
        for role in SERVICES:
            if role is not Role.PRODUCER or not wanted.producers:
                yield Identity(_prefixed(tenant, role.value), role, tenant)
        for name in wanted.producers:
            yield Identity(_prefixed(tenant, name), Role.PRODUCER, tenant)
        if wanted.shared:
            yield Identity(_prefixed(tenant, Role.AGENT.value), Role.AGENT, tenant)
        else:
            yield from (_of_file(file) for file in agents if file.agent.tenant == tenant)
    for agent_id in wanted.foreign:
        yield Identity(agent_id, Role.FOREIGN, wanted.tenant, Scope((agent_id,), ()))


def _of_file(file: AgentConfiguration) -> Identity:
    agent = file.agent
    scope = Scope((agent.id,), agent.capabilities)
    return Identity(file.mqtt.username or _prefixed(agent.tenant, agent.id), Role.AGENT, agent.tenant, scope)


def _prefixed(tenant: str, name: str) -> str:
    return name if tenant == DEFAULT_TENANT else f"{tenant}.{name}"


def _joined(first: Scope, second: Scope) -> Scope:
    return Scope(
        tuple(dict.fromkeys((*first.agents, *second.agents))),
        tuple(dict.fromkeys((*first.capabilities, *second.capabilities))),
    )


def _described(identity: Identity) -> str:
    return f"{identity.role.value} of tenant {identity.tenant}"
