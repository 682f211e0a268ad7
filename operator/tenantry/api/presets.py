"""What plans preset and tenants may override: the language model, retrieval, and rate limits."""

from __future__ import annotations

from typing import Annotated

from tenantry.api.common import ApiModel, DecimalString
from tenantry.api.schema import Rule, Schema

Temperature = Annotated[
    DecimalString,
    Schema(
        minLength=1,
        maxLength=6,
        rules=[
            Rule(
                r"self.matches('^([01](\\.[0-9]{1,4})?|2(\\.0{1,4})?)$')",
                'temperature must be a decimal from 0 to 2 in quotes, such as "0.2"',
                offending="'temperature must be a decimal from 0 to 2, such as \"0.2\", not ' + self",
            )
        ],
    ),
]
Rate = Annotated[int, Schema(minimum=1, maximum=1_000_000_000, format="int64")]


class Model(ApiModel):
    """The language model; an absent field is decided elsewhere (by the plan, or by the application)."""

    provider: Annotated[str, Schema(minLength=1, maxLength=63)] | None = None
    """Who serves the model, such as openai."""
    name: Annotated[str, Schema(minLength=1, maxLength=128)] | None = None
    """The provider's name of the model, such as gpt-4."""
    temperature: Temperature | None = None
    """Sampling temperature, a decimal from 0 to 2 in quotes."""
    max_tokens: Annotated[int, Schema(minimum=1, maximum=10_000_000)] | None = None
    """The most tokens that one answer may have."""
    system_prompt: Annotated[str, Schema(maxLength=16384)] | None = None
    """Text that is put before every conversation."""


class Retrieval(ApiModel):
    """How passages are found for an answer; an absent field is decided elsewhere."""

    top_k: Annotated[int, Schema(minimum=1, maximum=1000)] | None = None
    """How many passages are given to the model."""
    chunk_size: Annotated[int, Schema(minimum=1, maximum=100_000)] | None = None
    """How many tokens a passage has when documents are split."""
    rerank: bool | None = None
    """Whether the passages found are ranked again by a second model."""


class RateLimits(ApiModel):
    """Rate limits at the gateway; an absent one does not limit."""

    requests_per_second: Rate | None = None
    """Sustained requests per second."""
    burst: Rate | None = None
    """Requests that may arrive at once."""
    tokens_per_minute: Rate | None = None
    """Tokens of the language model per minute, in and out together."""


def _paths(section: str, model: type[ApiModel]) -> list[str]:
    return [f"{section}.{field.alias}" for field in model.model_fields.values()]


OVERRIDABLE: tuple[str, ...] = (
    *_paths("model", Model),
    *_paths("retrieval", Retrieval),
    *_paths("limits", RateLimits),
)
"""Every setting that a Plan may let its tenants override, as the dotted path below `spec.overrides`."""
