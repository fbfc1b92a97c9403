"""Mosquitto's password file: names, and PBKDF2 hashes in its own ``$7$`` form."""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping

import msgspec

from agent2389.errors import ConfigurationError

ITERATIONS = 1000
"""Ten times Mosquitto 2.0's own. It hashes in its only thread at every CONNECT, so a hundred thousand
would hold up everybody whenever a fleet reconnects; what we generate has 192 random bits anyway."""
SALT_BYTES = 12
HASH_BYTES = 64
PASSWORD_BYTES = 24


class Hash(msgspec.Struct, frozen=True):
    """What a broker keeps of a password: PBKDF2-HMAC-SHA512."""

    salt: bytes
    digest: bytes
    iterations: int

    def __str__(self) -> str:
        return f"$7${self.iterations}${self.salt_text}${self.digest_text}"

    @property
    def salt_text(self) -> str:
        """The salt in base 64."""
        return base64.b64encode(self.salt).decode()

    @property
    def digest_text(self) -> str:
        """The digest in base 64."""
        return base64.b64encode(self.digest).decode()

    def matches(self, password: str) -> bool:
        """Whether ``password`` has this hash."""
        return hmac.compare_digest(self.digest, _digest(password, self.salt, self.iterations))


def new_password() -> str:
    """A password nobody guesses, without characters that a URL or a shell would change."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


def hash_password(password: str) -> Hash:
    """Hash with a fresh salt."""
    salt = secrets.token_bytes(SALT_BYTES)
    return Hash(salt, _digest(password, salt, ITERATIONS), ITERATIONS)


def read_hash(text: str) -> Hash:
    """Read ``$7$iterations$salt$digest``. Raises ``ConfigurationError``."""
    try:
        empty, kind, iterations, salt, digest = text.split("$")
        if (empty, kind) != ("", "7"):
            raise ValueError(kind)
        return Hash(base64.b64decode(salt, validate=True), base64.b64decode(digest), int(iterations))
    except (ValueError, binascii.Error):
        raise ConfigurationError(
            "the password file holds something else than $7$ hashes",
            hint="hash plain text with mosquitto_passwd -U FILE, or make the file anew",
        ) from None


def read_password_file(text: str) -> dict[str, Hash]:
    """Login → hash. Raises ``ConfigurationError`` naming the line."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        login, colon, rest = line.partition(":")
        if not colon:
            raise ConfigurationError(f"line {number} of the password file is not LOGIN:HASH")
        found[login] = read_hash(rest)
    return found


def render_password_file(hashes: Mapping[str, Hash]) -> str:
    """The file that ``password_file`` names."""
    return "".join(f"{login}:{hashed}\n" for login, hashed in hashes.items())


def _digest(password: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations, HASH_BYTES)
