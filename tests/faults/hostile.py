"""Documents of people who do not mean well, or whose tools do not, and in which words they are refused.

A document is YAML as it is written, or an object.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.integration.kind_objects import plan, with_spec
from tests.integration.kind_objects import tenant as plain_tenant

Object = dict[str, Any]
Document = str | Object

MEGABYTE = 1_000_000
EMOJI, COMBINING, ZERO_WIDTH, RIGHT_TO_LEFT = "\U0001f600", "e\u0301", "al\u200bice", "\u202eecila"
CONTROL = "\u0000\u0007\u001b[31m"
"""NUL, a bell, and red for a terminal that believes it."""

OF_US = "at most 56 characters of a-z, 0-9 and '-'"


@dataclass(frozen=True, slots=True)
class Refused:
    """A document, and the words that whoever applies it reads: the field, and what is wrong with it."""

    document: Document
    words: tuple[str, ...]


def tenant(name: str = "hostile", **spec: Any) -> Object:
    return with_spec(plain_tenant(name), **spec)


def text(document: Document) -> str:
    """Return what is written to kubectl."""
    return document if isinstance(document, str) else json.dumps(document)


def refused(document: Document, *words: str) -> Refused:
    return Refused(document, words)


def written(spec: str = "", metadata: str = "name: hostile") -> str:
    """A Tenant in YAML with some lines of its spec as they are."""
    lines = "".join(f"  {line}\n" for line in ("owner: {email: ops@hostile.example}", *spec.splitlines()))
    return f"apiVersion: tenantry.dev/v1alpha1\nkind: Tenant\nmetadata:\n  {metadata}\nspec:\n{lines}"


def of_plan(**spec: Any) -> Object:
    return {**plan("hostile"), "spec": {**plan()["spec"], **spec}}


def quota(**amounts: Any) -> Object:
    return of_plan(resources={"quota": {name.replace("_", "."): amount for name, amount in amounts.items()}})


def members(*names: str, **fields: Any) -> list[Object]:
    return [{"kind": "User", "name": name, "role": "viewer", **fields} for name in names]


def annotated(size: int) -> Object:
    """A Tenant with annotations of so many characters in all."""
    document = tenant("hostile")
    parts = {f"example.com/{number}": "x" * (size // 8) for number in range(8)}
    return {**document, "metadata": {**document["metadata"], "annotations": parts}}


def archive(**spec: Any) -> Object:
    return {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": "TenantArchive",
        "metadata": {"name": "hostile-1f0c9a2e"},
        "spec": {
            "tenant": "hostile",
            "tenantUID": "1f0c9a2e",
            "owner": {"email": "ops@hostile.example"},
            "purgeAfter": "2100-01-01T00:00:00Z",
            **spec,
        },
    }


def laughs(levels: int = 9) -> str:
    """A billion laughs: each level is nine times the one before."""
    lines = ["a0: &a0 [" + ",".join(["lol"] * 9) + "]"]
    lines += [f"a{n}: &a{n} [" + ",".join([f"*a{n - 1}"] * 9) + "]" for n in range(1, levels)]
    return "\n".join(lines) + "\n" + written()


def _names() -> Iterator[tuple[str, Refused]]:
    for what, name in {
        "57 characters": "a" * 57,
        "253 characters": "a" * 253,
        "254 characters": "a" * 254,
        "capitals": "Acme",
        "a dot": "a.b",
        "a blank": "a b",
        "a hyphen first": "-a",
        "a hyphen last": "a-",
        "an underscore": "a_b",
        "an umlaut": "m\u00fcller",
        "an emoji": EMOJI,
        "a combining character": COMBINING,
        "a zero-width space": ZERO_WIDTH,
        "right to left": RIGHT_TO_LEFT,
        "NUL": "a\u0000b",
        "a line feed": "a\nb",
    }.items():
        yield f"name with {what}", refused(tenant(name), "metadata.name: Invalid value", OF_US)
    for name in ("a/b", "a%2fb", "..", "."):
        yield f"name {name}", refused(tenant(name), f'invalid resource name "{name}"')
    yield "no name", refused(tenant(""), "resource name may not be empty")
    yield "plan's name of 64", refused(plan("p" * 64), "metadata.name must be at most 63 characters")
    yield "plan's name with an emoji", refused(plan(EMOJI), "metadata.name must be at most 63 characters")
    for name in ("default", "kube-system", "kube-x", "openshift-x", "tenantry-system"):
        document = tenant("hostile", namespace={"name": name})
        yield (
            f"namespace {name}",
            refused(document, f"spec.namespace.name: Forbidden: namespace.name must not be {name}"),
        )


def _yaml() -> Iterator[tuple[str, Refused]]:
    number = "spec.retentionDays"
    yield "Norway", refused(written("plan: no"), ".spec.plan: expected string")
    yield "Norway's name", refused(written(metadata="name: no"), "cannot unmarshal bool", "metadata.name")
    yield "a word for a switch", refused(written('suspended: "yes"'), ".spec.suspended: expected boolean")
    yield "more than any float", refused(written("retentionDays: 1e400"), f".{number}: expected numeric")
    yield "infinity", refused(written("retentionDays: .inf"), "unsupported value: +Inf")
    yield "not a number", refused(written("retentionDays: .nan"), "unsupported value: NaN")
    yield "half a day", refused(written("retentionDays: 1.5"), number, "must be of type integer")
    yield "base 60", refused(written("retentionDays: 1:30"), f".{number}: expected numeric")
    yield (
        "minus",
        refused(written("retentionDays: -1"), f"{number}: Invalid value: -1", "greater than or equal to 0"),
    )
    yield (
        "int64 and one",
        refused(written("configRevision: 9223372036854775808"), "spec.configRevision", "int64"),
    )
    yield (
        "23 digits",
        refused(written("configRevision: 99999999999999999999999"), "spec.configRevision", "int64"),
    )
    yield "a tab", refused(written("\tplan: free"), "found character that cannot start any token")
    yield "a billion laughs", refused(laughs(), "document contains excessive aliasing")
    yield "an anchor in itself", refused(written("costCenters: &x [*x]"), "anchor 'x' value contains itself")
    yield (
        "half a character",
        refused(written('displayName: "\\ud83d"'), "invalid Unicode character escape code"),
    )
    yield (
        "a call",
        refused(written("plan: !!python/object/apply:os.system [id]"), ".spec.plan: expected string"),
    )
    yield "no document", refused("---\n---\n", "no objects passed to apply")
    yield "a list", refused("- a\n", "invalid object to validate")
    head = written().partition("spec:")[0]
    yield "no spec", refused(head, "spec: Required value")
    yield "null for a spec", refused(head + "spec: null\n", "spec in body must be of type object")
    yield "a list for a spec", refused(head + "spec: []\n", ".spec: expected map")
    yield "null for members", refused(written("members: ~"), "spec.members in body must be of type array")
    yield "a map for members", refused(written("members: {kind: User}"), ".spec.members: expected list")
    yield (
        "an address for an owner",
        refused(
            written().replace("{email: ops@hostile.example}", "ops@hostile.example"),
            ".spec.owner: expected map",
        ),
    )


def _fields() -> Iterator[tuple[str, Refused]]:
    deep = {"model": {"model": {"model": {"name": "x"}}}}
    yield (
        "overrides in overrides",
        refused(
            tenant("hostile", overrides=deep), ".spec.overrides.model.model: field not declared in schema"
        ),
    )
    yield "overrides as a list", refused(tenant("hostile", overrides=[]), ".spec.overrides: expected map")
    temperature = tenant("hostile", overrides={"model": {"temperature": 0.2}})
    yield (
        "temperature as a number",
        refused(temperature, ".spec.overrides.model.temperature: expected string"),
    )
    temperature = tenant("hostile", overrides={"model": {"temperature": "NaN"}})
    yield (
        "temperature of no number",
        refused(temperature, "temperature must be a decimal from 0 to 2", "not NaN"),
    )
    names = [f"u{number}" for number in range(201)]
    yield (
        "201 members",
        refused(
            tenant("hostile", members=members(*names)),
            "spec.members: Too many: 201: must have at most 200 items",
        ),
    )
    yield (
        "2,000 members",
        refused(
            tenant("hostile", members=members(*(f"u{number}" for number in range(2_000)))),
            "spec.members: Too many: 2000: must have at most 200 items",
        ),
    )
    yield (
        "a member twice",
        refused(
            tenant("hostile", members=members("bob", "bob")),
            '.spec.members: duplicate entries for key [kind="User",name="bob",namespace=""]',
        ),
    )
    yield (
        "200 of Kubernetes' own",
        refused(
            tenant("hostile", members=members(*(f"system:{number}" for number in range(200)))),
            "spec.members[0].name: Forbidden: name must not start with 'system:'",
        ),
    )
    labels = {f"k{number}": "v" for number in range(33)}
    yield (
        "33 labels",
        refused(
            tenant("hostile", namespace={"labels": labels}),
            "spec.namespace.labels: Too many: 33: must have at most 32",
        ),
    )
    for what, label in {
        "of 400 characters": "a" * 400,
        "with an emoji": EMOJI,
        "of nothing": "",
        "that merges": "<<",
    }.items():
        document = tenant("hostile", namespace={"labels": {label: "v"}})
        yield (
            f"a label's key {what}",
            refused(document, "spec.namespace.labels: Invalid value: labels must have keys"),
        )
    document = tenant("hostile", namespace={"labels": {"k": "v" * 64}})
    yield (
        "a label of 64 characters",
        refused(document, "spec.namespace.labels.k: Too long", "more than 63 bytes"),
    )
    yield (
        "an address of 255 characters",
        refused(tenant("hostile", owner={"email": "a@" + "b" * 249 + ".com"}), "spec.owner.email: Too long"),
    )
    yield (
        "an address with a line feed",
        refused(tenant("hostile", owner={"email": "a@b.com\nBcc: c@d.com"}), "email must be an address"),
    )


def _amounts() -> Iterator[tuple[str, Refused]]:
    needed = 'must be a quantity of at least 0, such as "2", 500m or 16Gi'
    for amount in ("-5", "1 Gi", "1gb", "Inf", "NaN", "0x10", "1e100", "1e999999999", "1E+999999999", ""):
        words = [needed, f'"{amount}"'] if amount else ["spec.resources.quota.pods"]
        yield f"a quota of {amount or 'nothing'}", refused(quota(pods=amount), *words)
    for what, number in {"1.5": 1.5, "1e30": 1e30, "5": 5}.items():
        yield (
            f"a quota of {what} without quotes",
            refused(
                quota(requests_storage=number), ".spec.resources.quota.requests.storage: expected string"
            ),
        )
    yield (
        "half a pod",
        refused(
            quota(pods="1.5"),
            "spec.resources.quota: Invalid value: quota must have whole numbers",
            "pods: 1.5",
        ),
    )
    yield (
        "a fee in floats",
        refused(
            of_plan(prices=[{"interval": "month", "amount": 9.5}]),
            '.spec.prices[interval="month"].amount: expected string',
        ),
    )


def _sizes() -> Iterator[tuple[str, Refused]]:
    yield (
        "annotations of 256 KiB and some",
        refused(annotated(270_000), "metadata.annotations: Too long: may not be more than 262144 bytes"),
    )
    yield "annotations of 1.5 MB", refused(annotated(3 * MEGABYTE // 2), "metadata.annotations: Too long")
    yield (
        "a field of 1.5 MB that nobody knows",
        refused(
            tenant("hostile", padding="x" * (3 * MEGABYTE // 2)),
            ".spec.padding: field not declared in schema",
        ),
    )
    yield (
        "a prompt of 1.5 MB",
        refused(
            of_plan(model={"systemPrompt": "x" * (3 * MEGABYTE // 2)}),
            "spec.model.systemPrompt: Too long: may not be more than 16384 bytes",
        ),
    )
    yield (
        "more than etcd takes",
        refused(archive(tenantSpec={"padding": "x" * (2 * MEGABYTE)}), "etcdserver: request is too large"),
    )
    yield (
        "more than an API server takes",
        refused(
            archive(tenantSpec={"padding": "x" * (4 * MEGABYTE)}),
            "Request entity too large: limit is 3145728",
        ),
    )


REFUSED: dict[str, Refused] = dict([*_names(), *_yaml(), *_fields(), *_amounts(), *_sizes()])


# --- what is let in -------------------------------------------------------------------------------------------------

MEANT: dict[str, tuple[str, str, Any]] = {
    "on": ("suspended: on", "suspended", True),
    "0x1e": ("retentionDays: 0x1e", "retentionDays", 30),
    "017": ("retentionDays: 017", "retentionDays", 15),
    "0o17": ("retentionDays: 0o17", "retentionDays", 15),
    "1_000": ("retentionDays: 1_000", "retentionDays", 1000),
    "1e1": ("retentionDays: 1e1", "retentionDays", 10),
    "1.0": ("retentionDays: 1.0", "retentionDays", 1),
    "a merge": ("<<: {plan: free}", "plan", "free"),
    "a folded text": ("displayName: >-\n  a\n  b", "displayName", "a b"),
}
"""YAML that means something else than it seems to: a line of the spec, a field, and its value."""

TEXTS: dict[str, str] = {
    "an emoji": EMOJI,
    "combining": COMBINING,
    "zero width": ZERO_WIDTH,
    "right to left": RIGHT_TO_LEFT,
    "controls": CONTROL,
    "what YAML refuses": "\u007f\u0080\u009f\ufffe\uffff",
    "what YAML takes for blanks": "a\u0085b\u2028c\u2029d\ufeff",
    "lines": "a\n  b\r\n\tc\n\n",
    "escapes": '"\\ \\ud83d \\x7f {{ }} ${x} <script>',
    "beyond": "\U0010ffff\U0001fffe\ufdd0",
}
"""What a name for people, a member's name and a prompt may hold."""
