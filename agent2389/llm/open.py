"""From a configuration section to a model."""

from agent2389.config.model import Endpoint, LlmSection, RoutingModel
from agent2389.errors import ConfigurationError
from agent2389.llm.openai import OpenAIModel
from agent2389.llm.port import Model
from agent2389.llm.pricing import Price
from agent2389.llm.rehearsal import RehearsalModel
from agent2389.llm.wrap import Retrying


def open_model(section: LlmSection, *, proxy: str | None = None) -> Model:
    """The model that ``[llm]`` names. Raises ``ConfigurationError`` for a provider not available."""
    price = None
    if section.price_per_million_input_usd is not None and section.price_per_million_output_usd is not None:
        price = Price(section.price_per_million_input_usd, section.price_per_million_output_usd)
    return _open(
        Endpoint(
            provider=section.provider,
            model=section.model,
            base_url=section.base_url,
            api_key=section.api_key,
        ),
        price,
        proxy,
        section.max_retries,
    )


def open_endpoint(section: LlmSection, name: str, *, proxy: str | None = None) -> Model:
    """An endpoint that the file lists. Raises ``ConfigurationError`` for any other name."""
    endpoint = section.endpoints.get(name)
    if endpoint is None:
        raise ConfigurationError(
            f"this agent lists no model endpoint named {name[:64]!r}",
            hint="add [llm.endpoints.NAME] to its file",
        )
    return _open(endpoint, None, proxy, section.max_retries)


def open_routing_model(routing: RoutingModel, section: LlmSection, *, proxy: str | None = None) -> Model:
    """The model of the routing step: ``[routing.llm]`` over ``[llm]``."""
    if routing.provider is None and routing.model is None:
        return open_model(section, proxy=proxy)
    provider = routing.provider or section.provider
    same = provider == section.provider
    return _open(
        Endpoint(
            provider=provider,
            model=routing.model or section.model,
            base_url=routing.base_url or (section.base_url if same else None),
            api_key=routing.api_key or (section.api_key if same else None),
        ),
        None,
        proxy,
        section.max_retries,
    )


def _open(endpoint: Endpoint, price: Price | None, proxy: str | None, retries: int) -> Model:
    match endpoint.provider:
        case "rehearsal":
            return RehearsalModel()
        case "openai":
            key = endpoint.api_key.get_secret_value() if endpoint.api_key else None
            model = OpenAIModel(
                endpoint.model, api_key=key, base_url=endpoint.base_url, proxy=proxy, price=price
            )
            return Retrying(model, retries)
        case "anthropic" | "google":
            raise ConfigurationError(
                f"provider {endpoint.provider} is not available in this version",
                hint='use provider = "openai" with the base_url of a compatible endpoint',
            )
