"""A stand-in for a Qdrant server: its REST interface over the emulation that its library brings, and its tokens.

It is no Qdrant. Collections and points are those of the library's local mode; what a token lets through is decided
here, as Qdrant's documentation has it (Security, "Granular Access Control with JWT" and "Table of Access"). What is
asked and answered goes over HTTP in the library's own models, so that the engine uses the library as on a server.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import jwt
from aiohttp import web
from pydantic import BaseModel, TypeAdapter, ValidationError
from qdrant_client.http import models
from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal

from tenantry.local.ports import LOOPBACK, free_ports

VERSION = "1.20.0"


class Turned(Exception):  # noqa: N818
    """The server does not do it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


_LEVELS = ("r", "prw", "rw")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was let in. access: the claim of a token, m of the key itself."""

    access: Any
    path_name: str
    content: bytes

    def allow(self, needed: str, name: str = "") -> str:
        """Return the collection where that is allowed: r, prw (points), rw or m (manage). name: not the path's."""
        name = name or self.path_name
        if isinstance(self.access, str):
            if self.access != "m" and needed != "r":
                raise Turned(403, "Global manage access is required")
            return name
        if not name or needed == "m":
            raise Turned(403, "Global access is required")
        modes = {each["collection"]: each["access"] for each in self.access}
        if name not in modes or _LEVELS.index(needed) > _LEVELS.index(modes[name]):
            raise Turned(403, f"Access to collection {name} is required")
        return name

    def body(self, kind: Any) -> Any:
        """Return what was sent."""
        try:
            return TypeAdapter(kind).validate_json(self.content)
        except ValidationError as error:
            raise Turned(400, f"Format error in JSON body: {error}") from error


Handler = Callable[[Asked], Awaitable[Any]]


class QdrantServer:
    """One on loopback, in a thread of its own. Its settings may be changed while it runs.

    tokens: `service.jwt_rbac`. open: no `service.api_key` is set. leaky: whoever has a token may do all.
    """

    def __init__(self) -> None:
        self.key = secrets.token_urlsafe(32)
        self.port = free_ports(1)[0]
        self.version = VERSION
        self.tokens = True
        self.open = False
        self.leaky = False
        self.writes = 0
        self._data = AsyncQdrantLocal(":memory:")
        self._indexes: dict[str, dict[str, models.PayloadIndexInfo]] = {}
        self._runner: web.AppRunner | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def start(self) -> None:
        """Have it answer."""
        self._run(self._start())

    def kill(self) -> None:
        """Have it answer no more, and break off what it answers now; what it has stays."""
        self._run(self._kill())

    def stop(self) -> None:
        """End it for good."""
        self.kill()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _start(self) -> None:
        if self._runner is None:
            self._runner = web.AppRunner(self._application(), shutdown_timeout=0.01, access_log=None)
            await self._runner.setup()
            await web.TCPSite(self._runner, LOOPBACK, self.port, reuse_address=True).start()

    async def _kill(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _application(self) -> web.Application:
        one = "/collections/{name}"
        handlers: dict[tuple[str, str], Handler] = {
            ("GET", "/"): self._info,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/collections"): self._list,
            ("GET", one): self._get,
            ("PUT", one): self._create,
            ("DELETE", one): self._drop,
            ("PUT", f"{one}/index"): self._index,
            ("POST", f"{one}/points"): self._retrieve,
            ("PUT", f"{one}/points"): self._upsert,
            ("POST", f"{one}/points/scroll"): self._scroll,
            ("POST", f"{one}/points/count"): self._count,
            ("POST", f"{one}/points/delete"): self._delete,
            ("POST", f"{one}/points/query"): self._query,
        }
        application = web.Application(client_max_size=32 << 20)
        for (method, path), handler in handlers.items():
            application.router.add_route(method, path, partial(self._answer, handler=handler))
        return application

    # --- who may ----------------------------------------------------------------------------------------------------

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            access = "m" if request.path == "/" else await self._access(request)
            asked = Asked(access, request.match_info.get("name", ""), await request.read())
            with _turned():
                result = await handler(asked)
        except Turned as error:
            return web.json_response({"status": {"error": str(error)}, "time": 0}, status=error.status)
        if isinstance(result, web.Response):
            return result
        return web.Response(body=_json({"result": result, "status": "ok", "time": 0}))

    async def _access(self, request: web.Request) -> Any:
        """Return the claim of a token, m of the key itself; raise Turned where nobody is let in by it."""
        shown = request.headers.get("api-key") or request.headers.get("authorization", "").removeprefix(
            "Bearer "
        )
        if self.open or shown == self.key:
            return "m"
        if not self.tokens or shown.count(".") != 2:
            raise Turned(401, "Invalid API key or JWT")
        try:
            claims = jwt.decode(shown, self.key, algorithms=["HS256"])
        except jwt.InvalidTokenError as error:
            raise Turned(403, str(error)) from None
        where = claims.get("value_exists")
        if where is not None and not await self._exists(where):
            raise Turned(401, "Invalid JWT, stateful validation failed")
        return "m" if self.leaky else claims.get("access", "m")

    async def _exists(self, where: dict[str, Any]) -> bool:
        conditions = [
            models.FieldCondition(key=each["key"], match=models.MatchValue(value=each["value"]))
            for each in where["matches"]
        ]
        try:
            found, _ = await self._data.scroll(
                where["collection"], scroll_filter=models.Filter(must=conditions), limit=1
            )
        except ValueError:
            return False
        return bool(found)

    # --- what it does -----------------------------------------------------------------------------------------------

    async def _info(self, asked: Asked) -> Any:
        return web.json_response({"title": "qdrant - vector search engine", "version": self.version})

    async def _metrics(self, asked: Asked) -> Any:
        asked.allow("r")
        counts = {name: (await self._data.count(name)).count for name in self._data.collections}
        lines = [f'collection_points{{id="{name}"}} {count}\n' for name, count in counts.items()]
        return web.Response(text="# TYPE collection_points gauge\n" + "".join(lines))

    async def _list(self, asked: Asked) -> Any:
        access = asked.access
        names = [each.name for each in (await self._data.get_collections()).collections]
        if not isinstance(access, str):
            names = [each["collection"] for each in access if each["collection"] in names]
        return {"collections": [{"name": name} for name in names]}

    async def _get(self, asked: Asked) -> Any:
        name = asked.allow("r")
        info = await self._data.get_collection(name)
        return info.model_copy(update={"payload_schema": self._indexes.get(name, {})})

    async def _create(self, asked: Asked) -> Any:
        name = asked.allow("m")
        wanted = asked.body(models.CreateCollection)
        self.writes += 1
        return await self._data.create_collection(name, wanted.vectors)

    async def _drop(self, asked: Asked) -> Any:
        name = asked.allow("m")
        self.writes += 1
        self._indexes.pop(name, None)
        return await self._data.delete_collection(name)

    async def _index(self, asked: Asked) -> Any:
        name = asked.allow("rw")
        wanted = asked.body(models.CreateFieldIndex)
        await self._data.get_collection(name)
        kind = models.PayloadIndexInfo(data_type=models.PayloadSchemaType(wanted.field_schema), points=0)
        self._indexes.setdefault(name, {})[wanted.field_name] = kind
        return self._written()

    async def _upsert(self, asked: Asked) -> Any:
        name = asked.allow("prw")
        await self._data.upsert(name, (asked.body(models.PointsList)).points)
        return self._written()

    async def _delete(self, asked: Asked) -> Any:
        name = asked.allow("prw")
        await self._data.delete(name, asked.body(models.PointsSelector))
        return self._written()

    async def _retrieve(self, asked: Asked) -> Any:
        name = asked.allow("r")
        wanted = asked.body(models.PointRequest)
        return await self._data.retrieve(name, wanted.ids)

    async def _scroll(self, asked: Asked) -> Any:
        name = asked.allow("r")
        wanted = asked.body(models.ScrollRequest)
        points, after = await self._data.scroll(
            name,
            wanted.filter,
            wanted.limit or 10,
            offset=wanted.offset,
            with_vectors=bool(wanted.with_vector),
        )
        return {"points": points, "next_page_offset": after}

    async def _count(self, asked: Asked) -> Any:
        name = asked.allow("r")
        return await self._data.count(name, (asked.body(models.CountRequest)).filter)

    async def _query(self, asked: Asked) -> Any:
        name = asked.allow("r")
        wanted = asked.body(models.QueryRequest)
        if wanted.lookup_from is not None:
            asked.allow("r", wanted.lookup_from.collection)
        return await self._data.query_points(
            name, wanted.query, limit=wanted.limit or 10, lookup_from=wanted.lookup_from
        )

    def _written(self) -> models.UpdateResult:
        self.writes += 1
        return models.UpdateResult(operation_id=self.writes, status=models.UpdateStatus.COMPLETED)


@contextmanager
def _turned() -> Iterator[None]:
    """Tell of the emulation's errors as a server does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ValueError, KeyError) as error:
        said = str(error)
        status = 404 if "not found" in said else 409 if "already exists" in said else 400
        raise Turned(status, said) from error


def _json(value: Any) -> bytes:
    return json.dumps(value, default=_plain).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(type(value).__name__)
