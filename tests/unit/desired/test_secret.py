"""Secret `vector-store`: what an engine gives, as Kubernetes keeps it."""

from __future__ import annotations

import base64
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tenantry.desired.owner import Owner
from tenantry.desired.secret import vector_store

ACME = Owner("acme", "uid-of-acme", "tenant-acme")
CONTENTS = st.dictionaries(st.from_regex("[-._a-z0-9]+", fullmatch=True), st.text(), max_size=5)


@given(CONTENTS)
def test_what_goes_in_comes_out(contents: dict[str, str]) -> None:
    secret = vector_store(ACME, contents)
    assert (secret["kind"], secret["type"], secret["metadata"]["name"]) == (
        "Secret",
        "Opaque",
        "vector-store",
    )
    assert {key: base64.b64decode(value).decode() for key, value in secret["data"].items()} == contents


@given(CONTENTS, st.randoms())
def test_the_order_makes_no_difference(contents: dict[str, str], random: Random) -> None:
    mixed = dict(random.sample(list(contents.items()), len(contents)))
    assert list(vector_store(ACME, mixed)["data"].items()) == list(
        vector_store(ACME, contents)["data"].items()
    )
