"""The evaluator is right where Kubernetes' documentation leaves no doubt, for all that our policies are made of."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from tests.integration.cyclonus import Connection, Peer, allowed

pytestmark = pytest.mark.tool("cyclonus")

Object = dict[str, Any]


def namespace(name: str, **labels: str) -> Object:
    return {"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, **labels}}}


A, B = namespace("a"), namespace("b", team="red")
WEB, DATABASE = Peer("10.244.0.1", A, {"app": "web"}), Peer("10.244.0.2", A, {"app": "database"})
OTHER = Peer("10.244.0.3", B, {"app": "web"})
OTHER_6 = Peer("fd00:244::3", B, {"app": "web"})


def policy(namespace: str = "a", selector: Object | None = None, **rules: list[Object]) -> Object:
    """Return a policy of both types where no rules are given, else of those that are."""
    types = [each.capitalize() for each in rules] or ["Ingress", "Egress"]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": namespace},
        "spec": {"podSelector": selector or {}, "policyTypes": types, **rules},
    }


def to(*peers: Object, **more: Any) -> Object:
    return policy(egress=[{"to": list(peers), **more}])


def out_of(*peers: Object, **more: Any) -> Object:
    return policy(ingress=[{"from": list(peers), **more}])


def block(cidr: str, *but: str) -> Object:
    return {"ipBlock": {"cidr": cidr, "except": list(but)}}


def named(**labels: str) -> Object:
    return {"namespaceSelector": {"matchLabels": labels}}


def missing(key: str) -> Object:
    return {"namespaceSelector": {"matchExpressions": [{"key": key, "operator": "DoesNotExist"}]}}


def there(address: str) -> Peer:
    return Peer(address)


DENY = policy()
HTTPS = {"ports": [{"port": 443, "protocol": "TCP"}]}
INTERNET = to(block("0.0.0.0/0", "10.0.0.0/8", "169.254.0.0/16"), block("2000::/3", "2001:db8::/32"), **HTTPS)
TRANSLATED = to(block("64:ff9b::/96", "64:ff9b::a00:0/104"))


class Known(NamedTuple):
    """Policies, a connection, and whether it is allowed."""

    policies: list[Object]
    source: Peer
    destination: Peer
    expected: bool
    port: int = 443
    protocol: str = "TCP"


KNOWN = {
    "no policy": Known([], WEB, OTHER, True),
    "policy elsewhere": Known([policy("c")], WEB, OTHER, True),
    "denied out": Known([DENY], WEB, OTHER, False),
    "denied in": Known([DENY], OTHER, WEB, False),
    "denied to itself": Known([DENY], WEB, DATABASE, False),
    "denied out to the internet": Known([DENY], WEB, there("1.1.1.1"), False),
    "denied in from the internet": Known([DENY], there("1.1.1.1"), WEB, False),
    "only one way": Known([policy(ingress=[])], WEB, OTHER, True),
    "policies add up": Known([DENY, INTERNET], WEB, there("1.1.1.1"), True),
    "other pods are selected": Known([policy(selector={"matchLabels": {"app": "x"}})], WEB, OTHER, True),
    "both ends count, in": Known([to({"namespaceSelector": {}}), policy("b")], WEB, OTHER, False),
    "both ends count, out": Known([DENY, policy("b", ingress=[{}])], WEB, OTHER, False),
    "empty rule": Known([DENY, policy(ingress=[{}])], there("1.1.1.1"), WEB, True),
    "empty rule out": Known([DENY, policy(egress=[{}])], WEB, there("169.254.169.254"), True),
    "port": Known([INTERNET], WEB, there("1.1.1.1"), False, port=80),
    "protocol": Known([INTERNET], WEB, there("1.1.1.1"), False, protocol="UDP"),
    "range of ports": Known(
        [to(ports=[{"port": 1000, "endPort": 2000}])], WEB, there("1.1.1.1"), True, port=2000
    ),
    "beyond a range": Known(
        [to(ports=[{"port": 1000, "endPort": 2000}])], WEB, there("1.1.1.1"), False, port=2001
    ),
    "first of except": Known([INTERNET], WEB, there("10.0.0.0"), False),
    "last of except": Known([INTERNET], WEB, there("10.255.255.255"), False),
    "after except": Known([INTERNET], WEB, there("11.0.0.0"), True),
    "second of except": Known([INTERNET], WEB, there("169.254.169.254"), False),
    "IPv6": Known([INTERNET], WEB, there("2606:4700:4700::1111"), True),
    "IPv6 except": Known([INTERNET], WEB, there("2001:db8::1"), False),
    "IPv6 beside": Known([INTERNET], WEB, there("fd00:ec2::254"), False),
    "IPv4 block, IPv6 address": Known([to(block("0.0.0.0/0"))], WEB, there("fd00::1"), False),
    "IPv6 block, IPv4 address": Known([to(block("::/0"))], WEB, there("10.0.0.1"), False),
    "translated": Known([TRANSLATED], WEB, there("64:ff9b::808:808"), True),
    "translated except": Known([TRANSLATED], WEB, there("64:ff9b::a01:203"), False),
    "one address": Known([to(block("10.0.0.1/32"))], WEB, there("10.0.0.1"), True),
    "next address": Known([to(block("10.0.0.1/32"))], WEB, there("10.0.0.2"), False),
    "a block has pods too": Known([to(block("10.244.0.0/16"))], WEB, OTHER, True),
    "a block has pods too, IPv6": Known([to(block("fd00:244::/64"))], WEB, OTHER_6, True),
    "own namespace": Known([to({"podSelector": {}})], WEB, DATABASE, True),
    "own namespace, not another": Known([to({"podSelector": {}})], WEB, OTHER, False),
    "from the own namespace": Known([out_of({"podSelector": {}})], DATABASE, WEB, True),
    "from the own namespace, not another": Known([out_of({"podSelector": {}})], OTHER, WEB, False),
    "namespace by name": Known([out_of(named(**{"kubernetes.io/metadata.name": "b"}))], OTHER, WEB, True),
    "another name": Known([out_of(named(**{"kubernetes.io/metadata.name": "c"}))], OTHER, WEB, False),
    "a name is no pod's label": Known([out_of(named(app="web"))], OTHER, WEB, False),
    "every namespace": Known([out_of({"namespaceSelector": {}})], OTHER, WEB, True),
    "no namespace is outside": Known([out_of({"namespaceSelector": {}})], there("10.244.0.9"), WEB, False),
    "without a label": Known([out_of(missing("team"))], DATABASE, WEB, True),
    "with that label": Known([out_of(missing("team"))], OTHER, WEB, False),
}


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
def test_a_known_case(known: Known) -> None:
    connection = Connection(known.source, known.destination, known.port, known.protocol)
    assert allowed(known.policies, [connection]) == [known.expected]


def test_answers_come_in_the_order_of_the_questions() -> None:
    ports = [443, 80, 443, 443, 22, 443]
    asked = [Connection(WEB, there("1.1.1.1"), port) for port in ports]
    assert allowed([INTERNET], asked) == [port == 443 for port in ports]
    assert allowed([INTERNET], []) == []


def test_what_the_evaluator_cannot_read_is_no_answer() -> None:
    with pytest.raises(AssertionError, match="cyclonus failed"):
        allowed([{**DENY, "spec": {"podSelector": {}}}], [Connection(WEB, OTHER, 443)])
    with pytest.raises(AssertionError, match="cyclonus failed"):
        allowed([INTERNET], [Connection(WEB, there("nowhere"), 443)])
