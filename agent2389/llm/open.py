"""From configuration sections to models: adapters chosen, keys hidden, wrappers put on."""

import importlib.util
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from agent2389.config.model import Endpoint, LlmSection, RoutingModel
from agent2389.errors import ConfigurationError, MissingExtra
from agent2389.llm.breaker import Breaker, Breaking
from agent2389.llm.fallback import FallingBack
from agent2389.llm.port import Model
from agent2389.llm.pricing import Price, flat
from agent2389.llm.rehearsal import RehearsalModel
from agent2389.llm.streamed import Streamed
from agent2389.llm.wrap import Retrying
from agent2389.telemetry.imports import later
from agent2389.telemetry.logs import register_secret

if TYPE_CHECKING:
    from agent2389.llm.dialect import Dialect

DIALECTS: Final[Mapping[str, Callable[[], "Dialect"]]] = {
    "openai": later("agent2389.llm.openai", "OpenAIDialect"),
    "anthropic": later("agent2389.llm.anthropic", "AnthropicDialect"),
    "google": later("agent2389.llm.google", "GoogleDialect"),
}
_SDKS: Final = {"openai": "openai", "anthropic": "anthropic", "google": "google.genai"}
MAIN: Final = "default"
"""The name of the endpoint that ``[llm]`` itself is."""


class Models:
    """The models of one process. Each endpoint is opened once and shared, with one breaker.

    A job may name a listed endpoint, or a model that an endpoint of the file allows; never a URL.
    """

    def __init__(self, section: LlmSection, *, proxy: str | None = None) -> None:
        self._section = section
        self._proxy = proxy
        self._endpoints = {MAIN: main_endpoint(section), **section.endpoints}
        self._open: dict[tuple[str, str], Model] = {}
        self._breakers: dict[str, Breaker] = {}

    def main(self) -> Model:
        """What ``[llm]`` names, with its fallback chain."""
        chain = [self.endpoint(name) for name in (MAIN, *self._section.fallback)]
        return chain[0] if len(chain) == 1 else FallingBack(chain)

    def endpoint(self, name: str, model: str | None = None) -> Model:
        """A listed endpoint, with another of its models if ``model`` is given.

        Raises ``ConfigurationError`` for an endpoint or a model that the file does not allow.
        """
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            raise ConfigurationError(
                f"this agent lists no model endpoint named {name[:64]!r}",
                hint="add [llm.endpoints.NAME] to its file",
            )
        if model is not None and not _serves(endpoint, model):
            raise ConfigurationError(
                f"endpoint {name} does not allow the model {model[:64]!r}",
                hint='add it to the endpoint\'s models = ["…"]',
            )
        return self._opened(name, endpoint, model or endpoint.model)

    def for_job(self, wanted: Mapping[str, Any]) -> Model:
        """The model for a job's ``llm`` (``endpoint``, ``model``, ``provider``, each optional).

        Raises ``ConfigurationError`` when no endpoint of the file may serve it.
        """
        name, model, provider = (_word(wanted.get(key)) for key in ("endpoint", "model", "provider"))
        if name is not None:
            return self.endpoint(name, model)
        if model is None and provider is None:
            return self.main()
        for known, endpoint in self._endpoints.items():
            fits = provider is None or endpoint.provider == provider
            if fits and known == MAIN and model in (None, endpoint.model):
                return self.main()
            if fits and (model is None or _serves(endpoint, model)):
                return self.endpoint(known, model)
        asked = " ".join(word for word in (provider, model) if word is not None)
        raise ConfigurationError(
            f"no model endpoint of this agent serves {asked[:128]!r}",
            hint='add it to models = ["…"] of [llm] or of an [llm.endpoints.NAME]',
        )

    def routing(self, routing: RoutingModel) -> Model:
        """The model of the routing step: ``[routing.llm]`` over ``[llm]``."""
        if routing.provider is None and routing.model is None:
            return self.main()
        section = self._section
        provider = routing.provider or section.provider
        same = provider == section.provider
        endpoint = Endpoint(
            provider=provider,
            model=routing.model or section.model,
            base_url=routing.base_url or (section.base_url if same else None),
            api_key=routing.api_key or (section.api_key if same else None),
        )
        return self._opened("routing", endpoint, endpoint.model)

    def resting(self) -> dict[str, bool]:
        """For every endpoint that was asked: whether it is left alone after failures in a row."""
        return {name: breaker.is_open for name, breaker in self._breakers.items()}

    async def close(self) -> None:
        """Close every endpoint that was opened."""
        for model in self._open.values():
            await model.close()
        self._open.clear()

    def _opened(self, name: str, endpoint: Endpoint, model: str) -> Model:
        key = (name, model)
        if key not in self._open:
            self._open[key] = self._wrapped(name, endpoint, model)
        return self._open[key]

    def _wrapped(self, name: str, endpoint: Endpoint, model: str) -> Model:
        section = self._section
        inner = open_endpoint(endpoint, model, proxy=self._proxy)
        if endpoint.provider == "rehearsal":
            return inner
        if name not in self._breakers:
            self._breakers[name] = Breaker(name, section.breaker_failures, section.breaker_seconds)
        asked = Streamed(inner, section.first_token_timeout) if section.stream else inner
        return Breaking(Retrying(asked, section.max_retries), self._breakers[name])


def open_model(section: LlmSection, *, proxy: str | None = None) -> Model:
    """The model that ``[llm]`` names, alone in its process (tests, one-off commands)."""
    return Models(section, proxy=proxy).main()


def open_endpoint(endpoint: Endpoint, model: str, *, proxy: str | None = None) -> Model:
    """The bare adapter of an endpoint. Its key will not appear in this process' log.

    Raises ``MissingExtra`` at once when the provider's SDK is not installed: the SDK itself is imported
    by the first call, which would be a task's.
    """
    if endpoint.provider == "rehearsal":
        return RehearsalModel()
    if not has_sdk(endpoint.provider):
        raise MissingExtra(f"the provider {endpoint.provider}", "llm")
    key = endpoint.api_key.get_secret_value() if endpoint.api_key else None
    register_secret(key)
    from agent2389.llm.endpoint import EndpointModel  # noqa: PLC0415 - the rehearsal model needs no HTTP

    dialect = DIALECTS[endpoint.provider]()
    return EndpointModel(
        dialect, model, api_key=key, base_url=endpoint.base_url, proxy=proxy, price=_price(endpoint, model)
    )


def main_endpoint(section: LlmSection) -> Endpoint:
    """``[llm]`` as one of the endpoints."""
    return Endpoint(
        provider=section.provider,
        model=section.model,
        base_url=section.base_url,
        api_key=section.api_key,
        models=section.models,
        price_per_million_input_usd=section.price_per_million_input_usd,
        price_per_million_output_usd=section.price_per_million_output_usd,
    )


def _serves(endpoint: Endpoint, model: str) -> bool:
    return model == endpoint.model or model in endpoint.models


def has_sdk(provider: str) -> bool:
    """Whether the provider's SDK is installed, without importing it."""
    try:
        return importlib.util.find_spec(_SDKS[provider]) is not None
    except ModuleNotFoundError:
        return False


def _price(endpoint: Endpoint, model: str) -> Price | None:
    """The configured price is that of the endpoint's own model, not of others it serves."""
    read, written = endpoint.price_per_million_input_usd, endpoint.price_per_million_output_usd
    if model != endpoint.model or read is None or written is None:
        return None
    return flat(read, written)


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
