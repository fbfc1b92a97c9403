"""Where a broker is and how to get in."""

import ipaddress
import ssl
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
import structlog

from agent2389.errors import ConfigurationError

_SCHEMES = {"mqtt": False, "tcp": False, "mqtts": True, "ssl": True}

log = structlog.get_logger(__name__)


class BrokerAddress(msgspec.Struct, frozen=True, kw_only=True):
    """One broker; the password never shows in a representation."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = None
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None

    def __repr__(self) -> str:
        return f"BrokerAddress({self})"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"

    def tls_context(self) -> ssl.SSLContext | None:
        """TLS 1.2 or newer with host name verification, or ``None`` for a plain connection."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.client_cert is not None:
                context.load_cert_chain(self.client_cert, self.client_key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"the certificates for the broker cannot be used: {self._why(error)}",
                hint="check mqtt.ca_file, mqtt.client_cert and mqtt.client_key (AGENT2389_CA_FILE and so on)",
            ) from None
        return context

    def _why(self, error: OSError) -> str:
        """OpenSSL does not say which file it means."""
        for path in (self.ca_file, self.client_cert, self.client_key):
            if path is not None and not path.is_file():
                return f"there is no file {path}"
        names = ", ".join(str(path) for path in (self.ca_file, self.client_cert, self.client_key) if path)
        return f"{error} ({names})"


def parse_broker_url(
    url: str,
    *,
    username: str | None = None,
    password: str | None = None,
    ca_file: Path | None = None,
    client_cert: Path | None = None,
    client_key: Path | None = None,
    insecure_ok: bool = False,
    production: bool = False,
) -> BrokerAddress:
    """Read ``mqtt://``, ``mqtts://``, ``tcp://`` or ``ssl://``; default ports 1883 and 8883.

    ``client_key`` is the key of ``client_cert`` when it lies in a file of its own.

    Plain MQTT beyond loopback warns, and with ``production`` raises ``ConfigurationError``,
    unless ``insecure_ok``.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # urlsplit's own words repeat a part of the URL, which can be a part of the password.
        raise ConfigurationError(
            "the broker URL has no usable host and port",
            hint="write mqtt://USER:PASSWORD@HOST:PORT with / # ? @ : in the password percent-encoded",
        ) from None
    tls = _SCHEMES.get(parts.scheme)
    if tls is None or not parts.hostname:
        raise ConfigurationError(
            "the broker URL must look like mqtt://HOST:PORT or mqtts://HOST:PORT",
            hint="set MQTT_BROKER_URL or [mqtt] broker_url",
        )
    if not tls and not insecure_ok and not is_loopback(parts.hostname):
        if production:
            raise ConfigurationError(
                f"mqtt:// to {parts.hostname} is not allowed in production", hint="use mqtts://"
            )
        log.warning(
            "passwords and jobs travel in the clear; use mqtts:// or set AGENT2389_INSECURE_OK=1",
            host=parts.hostname,
        )
    return BrokerAddress(
        host=parts.hostname,
        port=port or (8883 if tls else 1883),
        tls=tls,
        username=username or (unquote(parts.username) if parts.username else None),
        password=password or (unquote(parts.password) if parts.password else None),
        ca_file=ca_file,
        client_cert=client_cert,
        client_key=client_key,
    )


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine by name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
