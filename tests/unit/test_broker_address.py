"""Broker URLs: what is read, what is refused, and that no message repeats a password."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent2389.broker.address import BrokerAddress, is_loopback, parse_broker_url
from agent2389.errors import ConfigurationError
from tests.support.mesh import clean_environ, command
from tests.support.structure import ROOT


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("mqtt://localhost", "localhost", 1883, False),
        ("tcp://127.0.0.1:2000", "127.0.0.1", 2000, False),
        ("mqtts://broker.example", "broker.example", 8883, True),
        ("ssl://broker.example:9", "broker.example", 9, True),
        ("mqtt://[::1]:1884", "::1", 1884, False),
    ],
)
def test_urls_are_read(url: str, host: str, port: int, tls: bool) -> None:
    address = parse_broker_url(url)
    assert (address.host, address.port, address.tls) == (host, port, tls)


def test_user_information_is_taken_out_and_decoded() -> None:
    address = parse_broker_url("mqtts://ann:p%40ss%2Fword@broker.example")
    assert (address.username, address.password) == ("ann", "p@ss/word")


def test_what_is_configured_beside_the_url_wins() -> None:
    address = parse_broker_url("mqtts://ann:one@broker.example", username="bob", password="two")
    assert (address.username, address.password) == ("bob", "two")


@pytest.mark.parametrize(
    "url", ["http://localhost", "localhost:1883", "mqtt://", "mqtt://host:99999", "mqtt://[::1"]
)
def test_other_urls_are_refused_with_a_next_step(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_broker_url(url)
    assert caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://ann:hunter2/x@host", "mqtt://ann:hunter2#x@host", "mqtt://ann:hunter2?x@host:1",
        "ftp://ann:hunter2@host", "mqtt://ann:hunter2@host:port",
    ],
)  # fmt: skip
def test_no_message_repeats_a_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_broker_url(url)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_an_address_hides_its_password() -> None:
    address = BrokerAddress(host="::1", port=1, username="ann", password="hunter2")
    assert f"{address} {address!r}" == "mqtt://[::1]:1 BrokerAddress(mqtt://[::1]:1)"


def test_plain_mqtt_to_another_machine_warns_unless_allowed() -> None:
    with capture_logs() as logs:
        parse_broker_url("mqtt://localhost")
        parse_broker_url("mqtts://broker.example")
        parse_broker_url("mqtt://broker.example", insecure_ok=True)
    assert logs == []
    with capture_logs() as logs:
        parse_broker_url("mqtt://broker.example")
    assert [(entry["log_level"], entry["host"]) for entry in logs] == [("warning", "broker.example")]


def test_plain_mqtt_to_another_machine_is_refused_in_production() -> None:
    with pytest.raises(ConfigurationError, match="production"):
        parse_broker_url("mqtt://broker.example", production=True)
    assert parse_broker_url("mqtt://localhost", production=True).port == 1883


@pytest.mark.parametrize(
    ("host", "own"),
    [("localhost", True), ("127.0.0.9", True), ("::1", True), ("10.0.0.1", False), ("x", False)],
)
def test_loopback(host: str, own: bool) -> None:
    assert is_loopback(host) is own


def test_a_missing_certificate_is_a_configuration_error(tmp_path: Path) -> None:
    address = parse_broker_url("mqtts://broker.example", ca_file=tmp_path / "none.crt")
    with pytest.raises(ConfigurationError, match="certificates"):
        address.tls_context()


def test_a_certificate_may_have_its_key_in_another_file(tmp_path: Path) -> None:
    """Made by the shipped script, whose server certificate serves as well as any for a client."""
    made = subprocess.run([ROOT / "broker" / "certs.sh", tmp_path, "localhost"], check=False)
    if made.returncode != 0:
        pytest.skip("openssl is not installed")
    files: dict[str, Any] = {"ca_file": tmp_path / "ca.crt", "client_cert": tmp_path / "server.crt"}
    whole = parse_broker_url("mqtts://broker.example", **files, client_key=tmp_path / "server.key")
    assert whole.tls_context() is not None
    with pytest.raises(ConfigurationError, match="certificates") as caught:
        parse_broker_url("mqtts://broker.example", **files).tls_context()
    assert "client_key" in str(caught.value.hint)
    with pytest.raises(ConfigurationError, match="certificates"):
        parse_broker_url("mqtts://broker.example", **files, client_key=tmp_path / "ca.key").tls_context()


def test_ops_keeps_plain_mqtt_out_of_production() -> None:
    named = {
        "AGENT2389_ENVIRONMENT": "production",
        "MQTT_BROKER_URL": "mqtt://broker.example:1883",
        "DATABASE_URL": "postgresql://x@127.0.0.1:1/x",
    }
    done = subprocess.run(
        command("ops"),
        env={**clean_environ(), **named},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 3
    assert "mqtt:// to broker.example is not allowed in production" in done.stderr
