"""Annotations that pydantic models carry into the generated OpenAPI schema, CEL rules above all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True)
class Rule:
    """One entry of `x-kubernetes-validations`.

    `message` says what to do. `offending` is a CEL expression for a message that quotes the value; the API
    server falls back to `message` when it fails. `field_path` points below the object that carries the rule.
    """

    expression: str
    message: str
    offending: str | None = None
    field_path: str | None = None
    reason: str | None = None

    def manifest(self) -> dict[str, str]:
        entries = {
            "rule": self.expression,
            "message": self.message,
            "messageExpression": self.offending,
            "fieldPath": self.field_path,
            "reason": self.reason,
        }
        return {key: value for key, value in entries.items() if value is not None}


def every_key(
    condition: str, message: str, *, found: str = "self.filter(k, !({}))[0]", reason: str | None = None
) -> Rule:
    """A rule for a map: the CEL condition on `k` holds for each of its keys.

    found: CEL for what the message quotes, with the condition to be filled in; by default a key that fails it.
    """
    quoted = message.replace("'", r"\'")
    offending = f"'{quoted}; found ' + {found.format(condition)}"
    return Rule(f"self.all(k, {condition})", message, offending=offending, reason=reason)


class Schema:
    """Extra keywords and rules for a type: `Annotated[str, Schema(rules=[...], maxLength=63)]`.

    `kubernetes` holds the `x-kubernetes-` keywords without their prefix.
    """

    def __init__(
        self,
        *,
        rules: Iterable[Rule] = (),
        kubernetes: Mapping[str, object] | None = None,
        **keywords: object,
    ) -> None:
        extensions = {f"x-kubernetes-{key}": value for key, value in (kubernetes or {}).items()}
        validations = [rule.manifest() for rule in rules]
        self.keywords: dict[str, Any] = {**keywords, **extensions}
        if validations:
            self.keywords[VALIDATIONS] = validations

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return merge(handler(core), self.keywords)


class Emptied:
    """For a block of fields, none of them required: null means nothing in it, as in `Annotated[Model, Emptied()]`.

    Who applies `{}` where something was before has null sent by server-side apply: the API server would refuse that.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            lambda value: {} if value is None else value, handler(source)
        )

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return merge(handler(core), {"nullable": True})


def merge(schema: Mapping[str, Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """`schema` with `keywords` added; the rules of both hold, of other keywords the added ones."""
    merged = {**schema, **keywords}
    rules = [*schema.get(VALIDATIONS, []), *keywords.get(VALIDATIONS, [])]
    if rules:
        merged[VALIDATIONS] = rules
    return merged


def list_map(*keys: str, max_items: int) -> Schema:
    """A list whose entries are told apart by `keys`, so that several writers can own entries of it."""
    return Schema(kubernetes={"list-type": "map", "list-map-keys": list(keys)}, maxItems=max_items)


def list_set(*, max_items: int) -> Schema:
    """A list of scalars without repetition."""
    return Schema(kubernetes={"list-type": "set"}, maxItems=max_items)
