"""A real Mosquitto with TLS and passwords, on files that `agent2389 broker config` wrote."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from agent2389.broker.passwords import hash_password
from agent2389.telemetry import children
from tests.support.mesh import clean_environ
from tests.support.structure import ROOT
from tests.support.waiting import until

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
PLUGIN = next(iter(sorted(Path("/usr/lib").glob("**/mosquitto_dynamic_security.so"))), None)
WITNESS = "witness"


class Guarded(msgspec.Struct, frozen=True):
    """Where the broker is, its CA, and the password of each login."""

    port: int
    ca: Path
    passwords: dict[str, str]
    folder: Path

    @property
    def url(self) -> str:
        return f"mqtts://localhost:{self.port}"


def generate(folder: Path, *arguments: str, **environ: str) -> dict[str, str]:
    """Run the command; the passwords that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "agent2389", "broker", "config", "--out", str(folder), "--json", *arguments],
        env={**clean_environ(), **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {row["login"]: row["password"] for row in json.loads(done.stdout)["data"] if row["password"]}


def _admit_witness(folder: Path) -> str:
    """One more login that may do everything: what nobody sees, it sees."""
    password = "secret-of-the-witness"
    hashed = hash_password(password)
    if (folder / "acl").exists():
        with (folder / "acl").open("a") as acl, (folder / "passwords").open("a") as passwords:
            acl.write(f"\nuser {WITNESS}\ntopic readwrite #\ntopic readwrite $SYS/#\n")
            passwords.write(f"{WITNESS}:{hashed}\n")
        return password
    path = folder / "dynamic-security.json"
    document = json.loads(path.read_text())
    kinds = ("publishClientSend", "publishClientReceive", "subscribePattern")
    document["clients"].append(
        {
            "username": WITNESS,
            "roles": [{"rolename": WITNESS}],
            "password": hashed.digest_text,
            "salt": hashed.salt_text,
            "iterations": hashed.iterations,
        }
    )
    document["roles"].append(
        {
            "rolename": WITNESS,
            "acls": [
                {"acltype": kind, "topic": topic, "priority": 0, "allow": True}
                for kind in kinds
                for topic in ("#", "$SYS/#")
            ],
        }
    )
    path.write_text(json.dumps(document))
    return password


def make_certificates(folder: Path) -> None:
    subprocess.run([ROOT / "broker" / "certs.sh", folder, "localhost"], check=True)


@asynccontextmanager
async def guarded_broker(
    folder: Path, *arguments: str, dynamic: bool = False, witness: bool = True
) -> AsyncIterator[Guarded]:
    """The broker for the time of the block."""
    port = children.free_port()
    options = [*arguments, "--listener", f"{port} 127.0.0.1"]
    options += ["--dynamic-security"] if dynamic else []
    options += ["--user", "root"] if os.geteuid() == 0 else []
    passwords = generate(folder, *options)
    await asyncio.to_thread(make_certificates, folder / "certs")
    if witness:
        passwords[WITNESS] = _admit_witness(folder)
    async with serving(folder, port):
        yield Guarded(port, folder / "certs" / "ca.crt", passwords, folder)


@asynccontextmanager
async def serving(folder: Path, port: int) -> AsyncIterator[None]:
    """Mosquitto on the files in ``folder``."""
    assert MOSQUITTO is not None
    log = folder / "broker.log"
    process = await children.start([MOSQUITTO, "-c", folder / "mosquitto.conf"], log)
    try:
        await until(lambda: not children.is_free(port) or process.returncode is not None)
        assert process.returncode is None, log.read_text()
        yield
    finally:
        await children.stop(process)
