"""Exports in a folder or an object store, by fsspec: file:///exports, s3://bucket/prefix and whatever else it opens.

A file of rows has a name of its own for each try, so that two processes (a leader that was frozen, and the next
one) never write the same; the manifest, one small file that is moved into place, says which of them counts.
Credentials are those that the store's own library finds in its environment.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, suppress
from datetime import datetime
from typing import IO, Any, Final, cast

import fsspec
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from tenantry.api.common import Timestamp
from tenantry.reconcile.exports import FORMAT, Exported, Source, StoreFailed

MANIFEST: Final = "manifest.json"

PIECE: Final = 1 << 20
"""Bytes that are read or written at one go; memory does not grow with the export."""

OBJECT_STORES: Final = ("s3", "gs", "az")

LEVEL: Final = 3
"""Of gzip: digits of vectors shrink to about 40 % at any level, and higher ones take three times as long."""


class _Manifest(BaseModel):
    """The manifest as it is written."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    format: str
    tenant: str
    tenant_uid: str
    owner: str
    archive: str
    archive_uid: str
    epoch: int
    shard: str
    server: str
    dimensions: int
    metric: str
    type: str
    file: str
    rows: int
    bytes: int
    sha256: str
    finished_at: Timestamp

    @classmethod
    def of(cls, export: Exported) -> _Manifest:
        """Return the manifest of an export."""
        source = {name: getattr(export.source, name) for name in Source.__slots__}
        return cls(
            **source,
            format=export.format,
            file=export.file,
            rows=export.rows,
            bytes=export.size,
            sha256=export.sha256,
            finished_at=export.finished,
        )

    def exported(self, url: str) -> Exported:
        """Return the export that it speaks of."""
        source = Source(**{name: getattr(self, name) for name in Source.__slots__})
        return Exported(
            source, url, self.file, self.rows, self.bytes, self.sha256, self.finished_at, self.format
        )


class FsspecStore:
    """The port `Store` below a URL. Raises StoreFailed where fsspec does not know what that is."""

    def __init__(self, url: str) -> None:
        with _failures("open", url):
            if url.partition("://")[0] in OBJECT_STORES:
                _register(url.partition("://")[0])
            self._fs, self._root = fsspec.url_to_fs(url)
        self._root = self._root.rstrip("/")

    async def find(self, name: str) -> Exported | None:
        """Return the export of that name, read back and intact; None: there is none, or it is not complete."""
        return await asyncio.to_thread(self._find, name)

    async def put(
        self, source: Source, lines: AsyncGenerator[bytes, None], now: Callable[[], datetime]
    ) -> Exported:
        """Write an export; one of that name that is there already, and intact, stays and is returned."""
        async with aclosing(lines):
            present = await self.find(source.name)
            if present is not None:
                return present
            try:
                return await self._write(source, lines, now)
            except StoreFailed:
                # The next leader, which was first, removes what it finds beside its own.
                present = await self.find(source.name)
                if present is None:
                    raise
                return present

    async def _write(
        self, source: Source, lines: AsyncGenerator[bytes, None], now: Callable[[], datetime]
    ) -> Exported:
        file = f"rows-{secrets.token_hex(4)}.jsonl.gz"
        path = f"{self._root}/{source.name}/{file}"
        writer = await asyncio.to_thread(_Writer, self._fs, path)
        try:
            async for piece in lines:
                await asyncio.to_thread(writer.write, piece)
            await asyncio.to_thread(writer.close)
            await asyncio.to_thread(self._check, path, writer.size, writer.sha256)
            url = self._fs.unstrip_protocol(f"{self._root}/{source.name}")
            export = Exported(
                source, url, file, writer.rows, writer.size, writer.sha256, now().replace(microsecond=0)
            )
            return await asyncio.to_thread(self._commit, export)
        except BaseException:
            await asyncio.to_thread(writer.discard)
            raise

    # --- for people: `tenantry restore` -------------------------------------------------------------------------

    def list(self) -> list[Exported]:
        """Return every export that has a manifest, by its name; files are not read."""
        with _failures("list", self._root):
            found = sorted(self._fs.glob(f"{self._root}/*/*/{MANIFEST}")) if self._there() else []
        exports = (self._read_manifest(path.rpartition("/")[0]) for path in found)
        return [export for export in exports if export is not None]

    def open(self) -> Exported:
        """Return the export that this store's own URL names. Raises StoreFailed."""
        export = self._read_manifest(self._root)
        if export is None:
            raise StoreFailed(f"{self._root} has no {MANIFEST} that can be read: it is no complete export")
        return export

    async def lines(self, export: Exported) -> AsyncGenerator[bytes, None]:
        """Yield the rows of the export that `open` returned, in pieces. Raises StoreFailed where it is damaged.

        It is read to its end before that is known: nothing may count before this generator has ended.
        """
        pieces = self._pieces(export)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece

    # --- in threads ---------------------------------------------------------------------------------------------

    def _there(self) -> bool:
        self._fs.invalidate_cache()
        return bool(self._fs.exists(self._root))

    def _find(self, name: str) -> Exported | None:
        folder = f"{self._root}/{name}"
        export = self._read_manifest(folder)
        if export is None:
            return None
        try:
            self._check(f"{folder}/{export.file}", export.size, export.sha256)
        except StoreFailed as error:
            if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
                raise  # whether it is intact is not known
            return None
        return export

    def _read_manifest(self, folder: str) -> Exported | None:
        path = f"{folder}/{MANIFEST}"
        with _failures("read", path):
            try:
                self._fs.invalidate_cache()
                text = self._fs.cat_file(path)
            except FileNotFoundError:
                return None
        try:
            read = _Manifest.model_validate_json(text)
        except ValidationError:
            return None
        if read.format != FORMAT or "/" in read.file:
            return None
        return read.exported(self._fs.unstrip_protocol(folder))

    def _check(self, path: str, size: int, sha256: str) -> None:
        """Read a file back; raises StoreFailed where it is not what was written."""
        seen, digest = 0, hashlib.sha256()
        with _failures("read", path), self._fs.open(path, "rb", block_size=PIECE) as file:
            while piece := file.read(PIECE):
                seen += len(piece)
                digest.update(piece)
        if (seen, digest.hexdigest()) != (size, sha256):
            raise StoreFailed(
                f"{path} is damaged: it has {seen} bytes with SHA-256 {digest.hexdigest()}, and was written with "
                f"{size} bytes and {sha256}"
            )

    def _commit(self, export: Exported) -> Exported:
        """Put the manifest in its place, unless another process was first; remove what earlier tries left."""
        folder = f"{self._root}/{export.source.name}"
        present = self._find(export.source.name)
        if present is None:
            text = json.dumps(_Manifest.of(export).model_dump(mode="json", by_alias=True), indent=2).encode()
            path = f"{folder}/{MANIFEST}"
            with _failures("write", path):
                temporary = f"{folder}/.{secrets.token_hex(4)}.tmp"
                with self._fs.open(temporary, "wb") as file:
                    file.write(text + b"\n")
                    _to_disk(file)
                self._fs.mv(temporary, path)
                _folder_to_disk(self._fs, folder)
        committed = present or export
        with suppress(OSError):  # what stays is no harm, and no export
            for path in self._fs.ls(folder, detail=False, refresh=True):
                if path.rpartition("/")[2] not in (MANIFEST, committed.file):
                    self._fs.rm_file(path)
        return committed

    def _pieces(self, export: Exported) -> Iterator[bytes]:
        path = f"{self._root}/{export.file}"
        rows = 0
        with _failures("read", path), self._fs.open(path, "rb", block_size=PIECE) as file:
            raw = _Hashing(file)
            with gzip.GzipFile(fileobj=cast("IO[bytes]", io.BufferedReader(raw, PIECE))) as unpacked:
                while piece := unpacked.read(PIECE):
                    rows += piece.count(b"\n")
                    yield piece
            while raw.read(PIECE):
                pass
        if (raw.size, raw.sha256) != (export.size, export.sha256):
            raise StoreFailed(
                f"{path} is damaged: its SHA-256 is {raw.sha256}, and the manifest says {export.sha256}"
            )
        if rows != export.rows:
            raise StoreFailed(f"{path} has {rows} rows, and the manifest says {export.rows}")


class _Hashing(io.RawIOBase):
    """A file that is read or written, with the digest of all that went through."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._file.read(len(buffer))
        buffer[: len(piece)] = piece
        self._through(piece)
        return len(piece)

    def write(self, piece: Any) -> int:
        self._file.write(piece)
        self._through(piece)
        return len(piece)

    def _through(self, piece: Any) -> None:
        self._digest.update(piece)
        self.size += len(piece)


class _Writer:
    """One file of rows, compressed as it is written."""

    def __init__(self, fs: Any, path: str) -> None:
        self._fs, self._path = fs, path
        self.rows = 0
        with _failures("write", path):
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._file = fs.open(path, "wb")
        self._raw = _Hashing(self._file)
        # Without a time and a name in it, the same rows give the same file.
        self._gzip = gzip.GzipFile("", "wb", LEVEL, cast("IO[bytes]", self._raw), mtime=0)

    @property
    def size(self) -> int:
        return self._raw.size

    @property
    def sha256(self) -> str:
        return self._raw.sha256

    def write(self, piece: bytes) -> None:
        with _failures("write", self._path):
            self._gzip.write(piece)
        self.rows += piece.count(b"\n")

    def close(self) -> None:
        with _failures("write", self._path):
            self._gzip.close()
            _to_disk(self._file)
            self._file.close()

    def discard(self) -> None:
        """Remove what was written; what cannot be removed is no export either."""
        with suppress(Exception):
            self._gzip.close()
        with suppress(Exception):
            self._file.close()
        with suppress(Exception):
            self._fs.rm_file(self._path)


def _to_disk(file: Any) -> None:
    """Have a local file survive the machine's end: what it holds is removed elsewhere after that."""
    file.flush()
    with suppress(
        AttributeError, OSError
    ):  # a store over the network has acknowledged it, or does at its close
        os.fsync(file.fileno())


def _folder_to_disk(fs: Any, folder: str) -> None:
    """Have the names in a local folder, and the folder's own, survive the machine's end."""
    if "file" not in fs.protocol:
        return
    while True:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        folder, _, last = folder.rpartition("/")
        if not folder or not last:
            return


def _register(protocol: str) -> None:
    """Have fsspec open an object store by obstore: s3fs asks for an older python-dateutil than kubernetes does."""
    try:
        from obstore.fsspec import register
    except ImportError:
        raise StoreFailed(f"{protocol}:// needs the package obstore: pip install 'tenantry[s3]'") from None
    register(protocol)


class _failures:  # noqa: N801 - reads as a clause of `with`
    """Turn whatever a store's library raises into StoreFailed: each has exceptions of its own."""

    def __init__(self, act: str, path: str) -> None:
        self._act, self._path = act, path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, StoreFailed):
            said = " ".join(str(error).split()) or type(error).__name__
            raise StoreFailed(f"cannot {self._act} {self._path}: {said}") from error
