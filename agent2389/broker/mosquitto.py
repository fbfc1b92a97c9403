"""The files of a Mosquitto with named users: configuration, ACL, dynamic security."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from agent2389.broker.access import PURPOSES, Grant, Identity, Role, grants
from agent2389.broker.passwords import Hash
from agent2389.wire.topics import BROKER_STATISTICS

CONFIGURATION, ACL, PASSWORDS = "mosquitto.conf", "acl", "passwords"
DYNAMIC_SECURITY = "dynamic-security.json"
ADMINISTRATOR = "admin"
"""The login for ``mosquitto_ctrl``, with dynamic security only."""
_CONTROL = "$CONTROL/dynamic-security/#"
_SUBSCRIBE_WIDELY = (Role.OPS, Role.MONITOR, Role.OPERATOR)


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where things are for the broker that reads the files.

    ``certificates`` holds ca.crt, server.crt and server.key; without it the listener is plain.
    ``plugin`` is the path of Mosquitto's dynamic security plugin; with it password file and ACL are
    replaced. ``user`` is whom a broker that was started as root becomes.
    """

    folder: str = "/mosquitto/config"
    certificates: str | None = "/mosquitto/config/certs"
    data: str = "/mosquitto/data/"
    listener: str = "8883"
    plugin: str | None = None
    user: str | None = None


def render_acl(identities: Sequence[Identity], *, foreign: tuple[str, ...] = ()) -> str:
    """The file that ``acl_file`` names: whoever is not in it may do nothing."""
    blocks = ["# Who may do what, one block for each login. Written by `agent2389 broker acl`.\n"]
    for identity in identities:
        lines = [f"# {PURPOSES[identity.role]}", f"user {identity.login}"]
        lines += [f"topic {grant.word} {grant.topic_filter}" for grant in grants(identity, foreign=foreign)]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def render_dynamic_security(
    identities: Sequence[Identity], hashes: Mapping[str, Hash], *, foreign: tuple[str, ...] = ()
) -> str:
    """The state of Mosquitto's dynamic security plugin: one role for each login.

    An ACL file grants every subscription and delivers only what may be read; here only roles that look
    over everything may subscribe so, others are told at once that a filter goes beyond their rights.
    """
    clients, roles = [], []
    for identity in identities:
        clients.append(_client(identity.login, hashes[identity.login], PURPOSES[identity.role]))
        acls = [
            entry for grant in grants(identity, foreign=foreign) for entry in _entries(grant)
        ]
        if identity.role in _SUBSCRIBE_WIDELY:
            acls += [_entry("subscribePattern", topic_filter) for topic_filter in ("#", BROKER_STATISTICS)]
        roles.append({"rolename": identity.login, "acls": acls})
    if ADMINISTRATOR in hashes:
        everything = Grant(_CONTROL, read=True, write=True)
        clients.append(_client(ADMINISTRATOR, hashes[ADMINISTRATOR], "For mosquitto_ctrl."))
        roles.append({"rolename": ADMINISTRATOR, "acls": _entries(everything)})
    document = {
        "defaultACLAccess": {
            "publishClientSend": False,
            "publishClientReceive": False,
            "subscribe": False,
            "unsubscribe": True,
        },
        "clients": clients,
        "groups": [],
        "roles": roles,
    }
    return json.dumps(document, indent=2) + "\n"


def _client(login: str, hashed: Hash, description: str) -> dict[str, Any]:
    return {
        "username": login,
        "textdescription": description,
        "roles": [{"rolename": login}],
        "password": hashed.digest_text,
        "salt": hashed.salt_text,
        "iterations": hashed.iterations,
    }


def _entries(grant: Grant) -> list[dict[str, Any]]:
    kinds = ["publishClientSend"] if grant.write else []
    if grant.read:
        kinds += ["publishClientReceive", "subscribePattern"]
    return [_entry(kind, grant.topic_filter) for kind in kinds]


def _entry(kind: str, topic_filter: str) -> dict[str, Any]:
    return {"acltype": kind, "topic": topic_filter, "priority": 0, "allow": True}


def render_configuration(layout: Layout) -> str:
    """``mosquitto.conf`` for named users; runs on Mosquitto 2.0.11 and newer."""
    return "\n".join([*_head(layout), *_security(layout), "set_tcp_nodelay true", _LIMITS.format(layout=layout)])


def _head(layout: Layout) -> list[str]:
    encrypted = layout.certificates is not None
    about = "Named users over TLS 1.2 or newer." if encrypted else "Named users, without TLS."
    files = DYNAMIC_SECURITY if layout.plugin else f"{PASSWORDS} and {ACL}"
    lines = [
        f"# {about} {files} are made by `agent2389 broker config`.",
        "# Mosquitto gives up root before it reads its files, so its user must be able to: in the image that is",
        '# uid 1883 (chown 1883, chmod 600 each). "Unable to load server key file" in the log means that it cannot.',
    ]
    if layout.user is not None:
        lines.append(f"user {layout.user}")
    lines.append(f"listener {layout.listener}")
    if encrypted:
        lines += [
            f"cafile {layout.certificates}/ca.crt",
            f"certfile {layout.certificates}/server.crt",
            f"keyfile {layout.certificates}/server.key",
            "tls_version tlsv1.2",
        ]
    return lines


def _security(layout: Layout) -> list[str]:
    if layout.plugin:
        return [
            "allow_anonymous false",
            f"plugin {layout.plugin}",
            f"plugin_opt_config_file {layout.folder}/{DYNAMIC_SECURITY}",
        ]
    return [
        "allow_anonymous false",
        f"password_file {layout.folder}/{PASSWORDS}",
        f"acl_file {layout.folder}/{ACL}",
    ]


_LIMITS = """
# Retained topics survive a restart where they can; the ledger sends them again in any case.
# Never autosave_on_changes true: 99 messages a second (measured).
persistence true
persistence_location {layout.data}
autosave_interval 60

# The stock limit of 1000 drops messages of a slow or offline client without a word.
max_queued_messages 10000
max_inflight_messages 20
# A message of the mesh has at most 256 KiB. Up to 1 MiB passes, so that the mesh can answer `too_large`;
# above that the broker refuses the message, and drops the connection whose packet is larger still.
max_packet_size 1114112
message_size_limit 1048576
persistent_client_expiration 1d
log_dest stdout
log_type error
log_type warning
log_type notice
"""
