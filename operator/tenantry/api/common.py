"""What all kinds share: names of the API, metadata, conditions, scalar types."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic.alias_generators import to_camel

from tenantry.api.schema import Rule, Schema, list_map

GROUP = "tenantry.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "tenantry"


def rfc3339(moment: datetime) -> str:
    """`moment` (aware) as Kubernetes writes times: UTC, whole seconds, `Z`."""
    # Not strftime, which writes the year 1 as "1".
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _in_utc(moment: datetime) -> datetime:
    """An API server takes times that are in UTC before the year 1 or after 9999."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be within the years 1 to 9999 in UTC") from None


Timestamp = Annotated[
    AwareDatetime,
    AfterValidator(_in_utc),
    PlainSerializer(rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""An aware time in UTC; RFC 3339 with whole seconds in JSON."""

DecimalString = Annotated[
    Decimal,
    PlainSerializer(lambda number: format(number, "f"), return_type=str, when_used="json"),
    WithJsonSchema({"type": "string"}),
]
"""An exact decimal number, a string in YAML because YAML's own numbers are floats."""


def is_quantity(text: str) -> str:
    """Return the CEL condition that the CEL expression `text` is a Kubernetes quantity.

    Of an exponent with many digits (1e999999999) Kubernetes' own parser writes out every digit: an API server that
    is asked about one answers nobody for minutes.
    """
    return f"(!{text}.matches('[eE][+-]?[0-9]{{3}}') && isQuantity({text}))"


Quantity = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int) else value),
    WithJsonSchema({"type": "string"}),
    Schema(
        minLength=1,
        maxLength=32,
        rules=[
            Rule(
                f"{is_quantity('self')} && quantity(self).compareTo(quantity('0')) >= 0",
                'must be a quantity of at least 0, such as "2", 500m or 16Gi',
            )
        ],
    ),
]
"""A Kubernetes quantity such as `500m` or `16Gi`, always a string.

Kubernetes' own int-or-string has no upper length, so rules on a map of them exceed the cost that an API
server allows.
"""

DNS_LABEL_PATTERN = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
"""As CEL spells it within quotes, as the next one."""
QUALIFIED_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
LABEL_VALUE_PATTERN = "^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"

DnsLabel = Annotated[
    str,
    Schema(
        minLength=1,
        maxLength=63,
        rules=[
            Rule(
                f"self.matches({DNS_LABEL_PATTERN!r})",
                "must be a name of a-z, 0-9 and '-' that starts and ends with a letter or digit",
            )
        ],
    ),
]
"""A name that also fits a label value."""

Count = Annotated[int, Schema(minimum=0, maximum=10**15, format="int64")]
"""A quantity of units."""

Text = Annotated[str, Schema(minLength=1, maxLength=100)]
"""A short name for people."""


class ApiModel(BaseModel):
    """Base of everything read from the API server: camelCase there, snake_case here, unknown fields
    ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def as_json(self) -> dict[str, Any]:
        """Return it as the API server takes it: camelCase, without what is unset."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


class ObjectMeta(ApiModel):
    """The parts of Kubernetes' metadata that the operator uses."""

    name: str
    namespace: str | None = None
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: Timestamp = datetime(1970, 1, 1, tzinfo=UTC)
    deletion_timestamp: Timestamp | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: list[str] = Field(default_factory=list)
    managed_fields: list[dict[str, Any]] = Field(default_factory=list)


class Condition(ApiModel):
    """One observation about an object, in the shape of Kubernetes' `metav1.Condition`."""

    type: Annotated[str, Schema(minLength=1, maxLength=316)]
    """What is observed, such as Ready. Programs should look at conditions, not at the phase."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds: True, False or Unknown."""
    observed_generation: Annotated[int, Schema(format="int64")] | None = None
    """The metadata.generation that this condition was computed from."""
    last_transition_time: Timestamp
    """When the status of this condition changed last."""
    reason: Annotated[str, Schema(minLength=1, maxLength=1024)]
    """One CamelCase word for programs: why the status is what it is."""
    message: Annotated[str, Schema(maxLength=32768)] = ""
    """A sentence for people: what is the case, and the next step where one is needed."""


def _readable(value: object, read: ValidatorFunctionWrapHandler) -> list[Condition]:
    """Leave out conditions that somebody else has garbled: what an operator says of an object it writes anew."""
    try:
        listed: list[Condition] = read(value)
    except ValidationError:
        listed = []
        for item in value if isinstance(value, list) else []:
            with suppress(ValidationError):
                listed.extend(read([item]))
    return listed


Conditions = Annotated[list[Condition], WrapValidator(_readable), list_map("type", max_items=32)]


class Status(ApiModel):
    """What the status of every kind holds."""

    observed_generation: Annotated[int, Schema(format="int64")] = -1
    """The metadata.generation that this status was computed from; -1 until the operator has seen the
    object."""
    conditions: Conditions = Field(default_factory=list)
    """The latest observations, one per type. Ready sums them up."""

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type, if there is one."""
        return next((condition for condition in self.conditions if condition.type == type_), None)


class Column(BaseModel):
    """A column of `kubectl get`; priority 1 shows it only with `-o wide`."""

    model_config = ConfigDict(frozen=True)

    name: str
    type: Literal["string", "integer", "date"]
    path: str
    description: str
    priority: int = 0


class Definition(BaseModel):
    """What the CustomResourceDefinition of a kind says beyond its schema."""

    model_config = ConfigDict(frozen=True)

    plural: str
    short_names: list[str]
    columns: list[Column]
    selectable: list[str] = []
    """Paths of fields that `--field-selector` takes, besides metadata.name."""
    rules: list[Rule] = []
    """Rules about the whole object; only these see metadata.name."""
    status_default: dict[str, Any] | None = None


class Resource(ApiModel):
    """Base of all kinds. `kind` is a Literal in each, so that an object of another kind is not taken for
    it."""

    DEFINITION: ClassVar[Definition]

    api_version: str = API_VERSION
    kind: str
    metadata: ObjectMeta

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def deleting(self) -> bool:
        """Somebody has asked for the deletion; finalizers still hold the object."""
        return self.metadata.deletion_timestamp is not None


AGE = Column(
    name="Age", type="date", path=".metadata.creationTimestamp", description="How long the object has existed"
)

PENDING_STATUS: dict[str, Any] = {
    "observedGeneration": -1,
    "conditions": [
        {
            "type": "Ready",
            "status": "Unknown",
            "reason": "Pending",
            "message": "Waiting for the operator",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
            "observedGeneration": -1,
        }
    ],
}
"""The status of an object that the operator has not seen yet; without it, tools take a new object for a
ready one."""
