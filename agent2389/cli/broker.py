"""Verbs for the broker's own files: rights, passwords, configuration."""

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path

import msgspec

from agent2389.broker.access import Identity, grants
from agent2389.broker.identities import Wanted, identities
from agent2389.broker.mosquitto import (
    ACL,
    ADMINISTRATOR,
    CONFIGURATION,
    DYNAMIC_SECURITY,
    PASSWORDS,
    Layout,
    render_acl,
    render_configuration,
    render_dynamic_security,
)
from agent2389.broker.passwords import (
    Hash,
    hash_password,
    new_password,
    read_password_file,
    render_password_file,
)
from agent2389.cli import output
from agent2389.config.environment import read_variable
from agent2389.config.load import load_agent
from agent2389.config.model import AgentConfiguration
from agent2389.errors import Agent2389Error, ConfigurationError, InputRefused, NotFound

KEPT = "kept"
VARIABLE = "AGENT2389_MQTT_PASSWORD_"
IMAGE_PLUGIN = "/usr/lib/mosquitto_dynamic_security.so"
_PLUGINS = ("usr/lib", "usr/lib/*", "usr/local/lib", "opt/homebrew/lib", "opt/homebrew/opt/mosquitto/lib")
_NOT_THE_AGENTS = ("MQTT_USERNAME", "MQTT_PASSWORD")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where files go and where the broker will see them; ``None`` means the usual."""

    folder: Path
    location: str | None
    certificates: str | None
    plain: bool
    listener: str | None
    dynamic: bool
    plugin: str | None
    user: str | None


class Password(msgspec.Struct, frozen=True):
    """One login's hash; ``shown`` is the password when it was made just now."""

    hashed: Hash
    origin: str
    shown: str | None = None


def acl(paths: Sequence[Path], wanted: Wanted, *, as_json: bool) -> None:
    """Print the ACL file, or every right as JSON."""
    made = _identities(paths, wanted)
    if not as_json:
        output.data(render_acl(made, foreign=wanted.foreign).rstrip("\n"))
        return
    output.document(
        [
            {
                "login": identity.login,
                "role": identity.role.value,
                "tenant": identity.tenant,
                "grants": [
                    {"topic": grant.topic_filter, "access": grant.word}
                    for grant in grants(identity, foreign=wanted.foreign)
                ],
            }
            for identity in made
        ]
    )


def config(
    paths: Sequence[Path], wanted: Wanted, place: Place, *, rotate: Sequence[str], as_json: bool
) -> None:
    """Write all files of a broker with named users; tell the passwords that nobody knows yet."""
    made = _identities(paths, wanted)
    logins = [identity.login for identity in made] + ([ADMINISTRATOR] if place.dynamic else [])
    if len(set(logins)) < len(logins):
        raise ConfigurationError(
            f"the login {ADMINISTRATOR} is the one of mosquitto_ctrl", hint="give the agent another login"
        )
    for login in rotate:
        if login not in logins:
            raise NotFound(f"there is no login {login}", hint=f"there are: {', '.join(logins)}")
    known = _known(place.folder / PASSWORDS)
    passwords = _passwords(logins, {login: known[login] for login in known if login not in rotate})
    hashes = {login: item.hashed for login, item in passwords.items()}
    written = {CONFIGURATION: render_configuration(_layout(place)), PASSWORDS: render_password_file(hashes)}
    if place.dynamic:
        written[DYNAMIC_SECURITY] = render_dynamic_security(made, hashes, foreign=wanted.foreign)
    else:
        written[ACL] = render_acl(made, foreign=wanted.foreign)
    _write(place.folder, written, data=place.location is None)
    _tell(made, passwords, place, sorted(set(known) - set(logins)), as_json=as_json)


def _identities(paths: Sequence[Path], wanted: Wanted) -> tuple[Identity, ...]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_THE_AGENTS)}
    return identities([] if wanted.shared and not paths else list(_load(paths, environ)), wanted)


def _load(paths: Sequence[Path], environ: Mapping[str, str]) -> Iterator[AgentConfiguration]:
    for path in _agent_files(paths):
        yield load_agent(path, environ=environ).configuration


def _agent_files(paths: Sequence[Path]) -> list[Path]:
    """The named files and those of named folders, else ./agents, else the packaged ones."""
    if not paths:
        if any(Path("agents").glob("*.toml")):
            return sorted(Path("agents").glob("*.toml"))
        with as_file(files("agent2389.config") / "shipped") as packaged:
            return sorted(packaged.glob("*.toml"))
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.toml")) if path.is_dir() else [path]
        if not inside:
            raise InputRefused("invalid", f"{path} holds no agent file", hint="name *.toml files")
        found += inside
    return found


def variable_of(login: str) -> str:
    """The environment variable that gives a login its password."""
    return VARIABLE + "".join(char if char.isalnum() else "_" for char in login).upper()


def _known(path: Path) -> dict[str, Hash]:
    return read_password_file(path.read_text(encoding="utf-8")) if path.exists() else {}


def _passwords(logins: Sequence[str], known: Mapping[str, Hash]) -> dict[str, Password]:
    """From the environment, else kept, else made."""
    found: dict[str, Password] = {}
    readers: dict[str, str] = {}
    for login in logins:
        name = variable_of(login)
        given = read_variable(os.environ, name)
        if given is not None and readers.setdefault(name, login) != login:
            raise ConfigurationError(
                f"{name} would be the password of {readers[name]} and of {login}",
                hint="give one of them another login, or let the passwords be made",
            )
        old = known.get(login)
        if given is not None:
            # An unchanged password keeps its hash, so that nothing differs after a second run.
            same = old is not None and old.matches(given)
            found[login] = Password(old if old and same else hash_password(given), name)
        elif old is not None:
            found[login] = Password(old, KEPT)
        else:
            made = new_password()
            found[login] = Password(hash_password(made), "made", made)
    return found


def _layout(place: Place) -> Layout:
    here = str(place.folder.resolve())
    location = (place.location or here).rstrip("/")
    data = "/mosquitto/data/" if place.location else f"{here}/data/"
    return Layout(
        folder=location,
        certificates=None if place.plain else (place.certificates or f"{location}/certs").rstrip("/"),
        data=data,
        listener=place.listener or ("1883" if place.plain else "8883"),
        plugin=_plugin(place) if place.dynamic else None,
        user=place.user,
    )


def _plugin(place: Place) -> str:
    if place.plugin is not None:
        return place.plugin
    if place.location is not None:
        return IMAGE_PLUGIN
    for folder in _PLUGINS:
        for path in sorted(Path("/").glob(f"{folder}/mosquitto_dynamic_security.so")):
            return str(path)
    raise ConfigurationError(
        "Mosquitto's dynamic security plugin is not installed here", hint="say where it is: --plugin PATH"
    )


def _write(folder: Path, texts: Mapping[str, str], *, data: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if data:
            (folder / "data").mkdir(exist_ok=True)
        for name, text in texts.items():
            new = folder / f".{name}.new"
            new.unlink(missing_ok=True)
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
            if (old := folder / name).exists():
                # The broker's user was given these files once; a new one must still be readable for it.
                info = old.stat()
                os.chown(new, info.st_uid, info.st_gid)
                new.chmod(info.st_mode & 0o777)
            new.replace(old)
    except OSError as error:
        raise Agent2389Error(
            f"{error.filename or folder}: {error.strerror}", hint="choose another --out"
        ) from None


def _tell(
    made: Sequence[Identity],
    passwords: Mapping[str, Password],
    place: Place,
    removed: Sequence[str],
    *,
    as_json: bool,
) -> None:
    roles = {identity.login: identity.role.value for identity in made} | (
        {ADMINISTRATOR: "mosquitto_ctrl"} if place.dynamic else {}
    )
    if as_json:
        output.document(
            [
                {"login": login, "role": roles[login], "password": item.shown, "origin": item.origin}
                for login, item in passwords.items()
            ],
            folder=str(place.folder),
            removed=removed,
        )
    else:
        fresh = [(login, roles[login], item.shown) for login, item in passwords.items() if item.shown]
        output.table(fresh, ("login", "role", "password"))
        for login, item in passwords.items():
            if item.shown is None:
                output.say(f"{login}: password {'kept' if item.origin == KEPT else f'of {item.origin}'}")
    for login in removed:
        output.say(f"removed: {login} (no agent file and no role has it)")
    if any(item.shown for item in passwords.values()):
        output.say("New passwords are shown this once: only their hashes are kept.")
    if not place.plain:
        certificates = _layout(place).certificates
        output.say(f"next: ca.crt, server.crt and server.key in {certificates} (to try it: broker/certs.sh)")
    output.say(
        "A running broker reads rights and passwords again when it is restarted"
        + ("." if place.dynamic else ", or on SIGHUP.")
    )
