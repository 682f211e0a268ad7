"""A RAG application's use of its tenant's vector store: insert documents, find them again.

    python app.py --tenant acme            the Secret is read by kubectl
    VECTOR_STORE_DIR=/vector-store python app.py      it is mounted as files, as in a pod

Copy `Store`: it reads the Secret again whenever the server says that credentials were replaced, that the tenant has
moved to another shard, or that writes are held back for a moment, and tries again. An embedding is a hash of words
here, so that no model is needed.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg import sql

T = TypeVar("T")

AGAIN = frozenset({"TN001", "TN002", "28P01", "28000", "57P01", "57P02", "57P03", "42501", "40001"})
"""What a server says when the Secret is to be read again, or the write sent again: see docs/vectors.md."""

DISTANCES = {"cosine": "<=>", "l2": "<->", "innerProduct": "<#>"}
"""How the distance is written for each metric."""

TRIES = 25
PAUSE_SECONDS = 0.05
"""At first; it doubles up to a second."""

DOCUMENTS = {
    "pricing": (
        "The pro plan costs 99 dollars a month and includes ten thousand queries.",
        {"topic": "billing"},
    ),
    "limits": ("Each tenant may send twenty requests per second, with bursts of forty.", {"topic": "limits"}),
    "moving": ("Vectors move to another shard while the application goes on.", {"topic": "operations"}),
    "backup": (
        "Deleted tenants are kept for thirty days, then exported and removed.",
        {"topic": "operations"},
    ),
}


class Store:
    """One tenant's vector store. read: returns the Secret's contents as they are now."""

    def __init__(self, read: Callable[[], dict[str, str]]) -> None:
        self._read = read
        self._given: dict[str, str] = {}
        self._connection: psycopg.Connection[Any] | None = None

    @property
    def dimensions(self) -> int:
        """How long an embedding must be."""
        self._given = self._given or self._read()
        return int(self._given["dimensions"])

    def insert(self, documents: dict[str, tuple[str, dict[str, str]]]) -> None:
        """Store documents; one of the same id is replaced."""
        rows = [
            (key, str(embedding(text, self.dimensions)), text, json.dumps(metadata))
            for key, (text, metadata) in documents.items()
        ]

        def work(connection: psycopg.Connection[Any]) -> None:
            with connection.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO items (id, embedding, content, metadata) VALUES (%s, %s, %s, %s)"
                    " ON CONFLICT (tenant_id, id) DO UPDATE SET embedding = excluded.embedding,"
                    " content = excluded.content, metadata = excluded.metadata",
                    rows,
                )

        self._run(work)

    def search(self, question: str, limit: int = 3, topic: str | None = None) -> list[tuple[str, str, float]]:
        """Return the nearest documents: id, text and distance."""
        vector = str(embedding(question, self.dimensions))

        def work(connection: psycopg.Connection[Any]) -> list[tuple[str, str, float]]:
            # Where there is an index, go on through it until enough rows have passed the filter.
            connection.execute("SET LOCAL hnsw.iterative_scan = strict_order")
            query = sql.SQL(
                "SELECT id, content, embedding {distance} {vector} AS distance FROM items"
                # Written out, so that the planner knows it: row-level security alone is found out too late for that.
                " WHERE tenant_id = {tenant} AND ({topic}::text IS NULL OR metadata->>'topic' = {topic})"
                " ORDER BY embedding {distance} {vector} LIMIT {limit}"
            ).format(
                distance=sql.SQL(DISTANCES[self._given["metric"]]),
                vector=sql.Literal(vector) + sql.SQL("::") + sql.SQL(self._given["type"]),
                tenant=sql.Literal(self._given["tenant"]),
                topic=sql.Literal(topic),
                limit=sql.Literal(limit),
            )
            return connection.execute(query).fetchall()

        return self._run(work)

    def _run(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        """Do some work in one transaction, again where the server says so."""
        for attempt in range(TRIES):
            try:
                if self._connection is None or self._connection.closed:
                    self._given = self._read()
                    self._connection = psycopg.connect(self._given["dsn"])
                with self._connection.transaction():
                    return work(self._connection)
            except psycopg.Error as error:
                broken = self._connection is None or self._connection.closed
                if attempt == TRIES - 1 or not (broken or error.sqlstate in AGAIN):
                    raise
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
                time.sleep(min(1.0, PAUSE_SECONDS * 2**attempt))
        raise AssertionError("the last try returns or raises")


def embedding(text: str, dimensions: int) -> list[float]:
    """Return a vector of length 1 in which texts with the same words are near each other."""
    vector = [0.0] * dimensions
    for word in text.lower().split():
        digest = hashlib.sha256(word.strip(".,?!").encode()).digest()
        for at in range(0, 32, 4):
            vector[int.from_bytes(digest[at : at + 3], "big") % dimensions] += 1 if digest[at + 3] % 2 else -1
    length = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [round(value / length, 6) for value in vector]


def mounted(folder: Path) -> dict[str, str]:
    """Read the Secret as Kubernetes mounts it: a file for each key, which changes with it."""
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def fetched(tenant: str) -> dict[str, str]:
    """Read the Secret by kubectl."""
    command = [
        "kubectl",
        "get",
        "secret",
        "vector-store",
        "--namespace",
        f"tenant-{tenant}",
        "--output",
        "json",
    ]
    if kubectl := os.environ.get("KUBECTL"):
        command[0] = kubectl
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    if answer.returncode != 0:
        raise SystemExit(f"no vector store of tenant {tenant}: {answer.stderr.strip()}")
    data = json.loads(answer.stdout)["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def main() -> None:
    """Insert the documents, and ask."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tenant", help="whose vector store it is, in namespace tenant-<name>")
    arguments = parser.parse_args()
    folder = os.environ.get("VECTOR_STORE_DIR")
    if not folder and not arguments.tenant:
        parser.error("name a tenant, or mount its Secret and set VECTOR_STORE_DIR")
    store = Store(lambda: mounted(Path(folder)) if folder else fetched(arguments.tenant))
    store.insert(DOCUMENTS)
    print(f"stored {len(DOCUMENTS)} documents of {store.dimensions} dimensions")
    for question, topic in (
        ("What costs a month of the pro plan?", None),
        ("Where do vectors go?", "operations"),
    ):
        key, text, distance = store.search(question, limit=1, topic=topic)[0]
        print(f"{question} -> {key} (distance {distance:.2f}): {text}")


if __name__ == "__main__":
    main()
