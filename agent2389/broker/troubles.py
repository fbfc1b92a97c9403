"""Why a broker cannot be used, in words that name the next step."""

import msgspec

LOGIN = "check mqtt.username and mqtt.password_env (MQTT_USERNAME, MQTT_PASSWORD)"
_ADDRESS = "check mqtt.broker_url (MQTT_BROKER_URL) and that the broker runs"


class Trouble(msgspec.Struct, frozen=True):
    """``what`` happened, the next step, and whether trying again without a change can help."""

    what: str
    hint: str
    refused_login: bool = False
    lasting: bool = False


_LOGIN_REFUSED = ("not authori", "bad user name", "password", "banned", "identifier not valid")
# Words of OpenSSL → what to do. The first that fits; host name before the general failure.
_CERTIFICATES = (
    ("hostname mismatch", "connect by a name that stands in the broker's certificate, or make one that has it"),
    ("ip address mismatch", "connect by a name that stands in the broker's certificate, or make one that has it"),
    ("certificate has expired", "renew the broker's certificate (server.crt) and restart the broker"),
    ("not yet valid", "compare the clocks: the broker's certificate begins later"),
    ("verify failed", "mqtt.ca_file (AGENT2389_CA_FILE) must hold the CA that signed the broker's certificate"),
)
_CERTIFICATE_OF_OURS = (
    "alert certificate required",
    "alert handshake failure",
    "alert unknown ca",
    "alert bad certificate",
)
_NOT_TLS = ("wrong_version_number", "wrong version number", "unexpected_eof", "eof occurred", "record layer")
_HUNG_UP = ("timed out", "connection lost", "reset by peer", "closed", "broken pipe", "no answer")


def explain(reason: str, *, tls: bool) -> Trouble:
    """What ``reason``, the words of a failed connection, means for whoever set it up."""
    words = reason.lower()
    if any(word in words for word in _LOGIN_REFUSED):
        return Trouble("the broker refuses the login", LOGIN, refused_login=True, lasting=True)
    if tls:
        for sign, hint in _CERTIFICATES:
            if sign in words:
                return Trouble("the broker's certificate is not accepted", hint, lasting=True)
        if any(word in words for word in _CERTIFICATE_OF_OURS):
            hint = "check mqtt.client_cert and mqtt.client_key"
            return Trouble("the broker does not accept our certificate", hint, lasting=True)
        if any(word in words for word in _NOT_TLS):
            return Trouble("the broker's port does not speak TLS", "name its TLS port, or write mqtt://")
    if any(word in words for word in _HUNG_UP):
        other = "a port without TLS needs mqtt://" if tls else "a port with TLS needs mqtts://"
        return Trouble("the broker does not answer", f"{_ADDRESS}; {other}")
    return Trouble("the broker cannot be reached", _ADDRESS)
