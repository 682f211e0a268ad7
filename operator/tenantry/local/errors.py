"""What can go wrong with the embedded environment, as one type."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class LocalError(Exception):
    """The embedded environment cannot do what was asked.

    The message is one line for a person: what failed, which file, port or tool, and what to do or which log
    to read. It is printed as it stands, without a traceback.
    """


@contextmanager
def plain_os_errors(doing: str) -> Iterator[None]:
    """Turn what the operating system refuses (disk full, no permission) into a `LocalError` with the path."""
    try:
        yield
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LocalError(f"{doing}: the disk is full{where}; free some space and try again") from error
        raise LocalError(f"{doing}: {error.strerror or error}{where}") from error
