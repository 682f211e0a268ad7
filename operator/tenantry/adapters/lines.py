"""Lines of an export as they come: in pieces that need not end with one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from tenantry.reconcile.ports import Refused

LONGEST_LINE: Final = 64 << 20
"""No row is longer: what goes on without an end of line is no export, and would take all memory."""


async def split(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield lines without their ends. Raises Refused where one is too long, or the last one has no end."""
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > LONGEST_LINE:
            raise Refused(f"a line is longer than {LONGEST_LINE >> 20} MiB: this is no export")
    if rest:
        raise Refused("the last line has no end: the export is not complete")
