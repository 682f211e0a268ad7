"""Files that survive a crash at any line: replaced at once, and locked against a second writer."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def write_private(path: Path, content: bytes) -> None:
    """Replace a file at once, readable by its owner only. The caller is the only writer. Raises OSError."""
    scratch = path.with_name(f"{path.name}.new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def digest(*paths: Path) -> str:
    """Return a hash that changes with the content of any of the files. Raises OSError."""
    content = hashlib.sha256()
    for path in paths:
        content.update(hashlib.sha256(path.read_bytes()).digest())
    return content.hexdigest()


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file at `path`; `waiting` is called once when somebody else has it.

    The lock ends with the process that holds it, however that ends. The holder may delete the file (and its
    folder): who waited for it then starts over with a new one. Raises OSError.
    """
    descriptor = _acquire(path, waiting)
    try:
        yield
    finally:
        os.close(descriptor)


def _acquire(path: Path, waiting: Callable[[], None]) -> int:
    waited = False
    while True:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue  # the folder was deleted by a holder just now
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waited:
                    waiting()
                    waited = True
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_file_of(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_file_of(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
