"""Settings of a process without an agent file: the ops service and one-shot commands."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr, ValidationError

from agent2389.config.environment import VARIABLES, read_variable
from agent2389.config.model import (
    HealthSection,
    LedgerSection,
    LoggingSection,
    MqttSection,
    NetworkSection,
    Section,
    WebhookSection,
)
from agent2389.errors import ConfigurationError

OPS_PORT = 2389
AGENT_PORT = 8080
DEFAULT_DATA = Path(".agent2389")


class ProcessConfiguration(Section):
    """What ops and the command line need: addresses, secrets, the data folder."""

    tenant: str = "default"
    mqtt: MqttSection = MqttSection()
    ledger: LedgerSection = LedgerSection()
    health: HealthSection = HealthSection()
    logging: LoggingSection = LoggingSection()
    api: str | None = None
    data: Path = DEFAULT_DATA
    manager_token: SecretStr | None = None
    webhook: WebhookSection = WebhookSection()
    network: NetworkSection = NetworkSection()
    environment: Literal["development", "production"] = "development"

    @property
    def is_production(self) -> bool:
        """Whether nothing may travel in the clear beyond this machine."""
        return self.environment == "production"


def load_process(environ: Mapping[str, str] | None = None) -> ProcessConfiguration:
    """Read the environment. Raises ``ConfigurationError`` naming the variable."""
    environ = os.environ if environ is None else environ
    values: dict[str, dict[str, str]] = {}
    names: dict[str, str] = {}
    for variable in VARIABLES:
        table, _, key = variable.key.rpartition(".")
        if table not in {"mqtt", "ledger", "health", "logging", "process", "agent", "webhook", "network", ""}:
            continue
        value = read_variable(environ, variable.name)
        if value is None or key in values.get(table, {}):
            continue
        if variable.name == "RUST_LOG":
            value = value.split(",")[0].rpartition("=")[2]
        values.setdefault(table, {})[key] = value
        names[variable.key] = variable.name
    process = values.get("process", {})
    try:
        return ProcessConfiguration.model_validate(
            {
                "tenant": values.get("agent", {}).get("tenant", "default"),
                **{key: values.get(key, {}) for key in ("mqtt", "health", "logging", "network")},
                "ledger": {
                    key: value
                    for key, value in values.get("ledger", {}).items()
                    if key in LedgerSection.model_fields
                },
                "api": process.get("api"),
                "data": process.get("data", DEFAULT_DATA),
                "manager_token": process.get("manager_token"),
                "webhook": _webhook(values.get("webhook", {})),
                "environment": values.get("", {}).get("environment", "development"),
            }
        )
    except ValidationError as error:
        problems = []
        for item in error.errors(include_url=False, include_input=False):
            key = ".".join(str(part) for part in item["loc"])
            problems.append(f"{names.get(key, key)}: {item['msg']}")
        raise ConfigurationError("the environment is not usable", problems=problems) from None


def _webhook(values: Mapping[str, str]) -> dict[str, Any]:
    """The section with its list taken apart."""
    if "events" not in values:
        return dict(values)
    listed = (name.strip() for name in values["events"].split(","))
    return {**values, "events": tuple(name for name in listed if name)}
