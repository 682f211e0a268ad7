"""What went wrong with the ledger, in one sentence for people, without a secret in it."""

from __future__ import annotations

import re

from sqlalchemy import URL


class LedgerError(Exception):
    """The ledger cannot be opened; `str()` is one sentence that says what to do."""


_SETTING = "TENANTRY_DATABASE_URL"

# What the driver's error holds -> what to tell. The first that is found decides; PostgreSQL's codes are at
# https://www.postgresql.org/docs/current/errcodes-appendix.html, SQLite's at https://sqlite.org/rescode.html.
_SQLSTATES = {
    "25006": f"takes no writes (a standby, or read-only): name the primary in {_SETTING}",
    "42501": "refuses what its user may not do: let that user create tables and write to them",
    "53100": "has no disk space left: free some there",
    "55P03": "is locked by another session for too long: look for it in pg_stat_activity",
    "57014": "took too long to answer and was stopped",
}
_SQLITE_CODES = {
    "SQLITE_BUSY": "is locked by another process: only one operator may use an SQLite ledger",
    "SQLITE_CANTOPEN": "cannot be opened: check that the path is a file that this user may read and write",
    "SQLITE_CORRUPT": "is damaged: restore it from a backup",
    "SQLITE_FULL": "has no disk space left: free some there",
    "SQLITE_IOERR": "cannot be read or written: check the disk under it",
    "SQLITE_NOTADB": "is not an SQLite database: name another file",
    "SQLITE_PERM": "may not be used by this user: check the permissions of the file",
    "SQLITE_READONLY": "is read-only for this user: check the permissions of the file and its directory",
}
_PHRASES = {
    "password authentication failed": f"refuses the user or the password: check both in {_SETTING}",
    "no password supplied": f"asks for a password: put it into {_SETTING}",
    "session is read-only": _SQLSTATES["25006"],
    "connection refused": "cannot be reached (connection refused): check that it runs and listens there",
    "failed to resolve host": "cannot be reached (no such host): check the name of the host",
    "timeout expired": "cannot be reached (no answer): check the network on the way",
}


def location(url: URL) -> str:
    """Return where a ledger is, for people: no user, no password, no options."""
    if url.get_backend_name() == "sqlite":
        return f"SQLite file {url.database}"
    hosts = url.query.get("host", ())
    host = url.host or ",".join([hosts] if isinstance(hosts, str) else hosts) or "localhost"
    if not host.startswith("/") and "," not in host:  # neither a socket's directory nor several hosts
        host = f"[{host}]:{url.port or 5432}" if ":" in host else f"{host}:{url.port or 5432}"
    return f"PostgreSQL at {host}, database {url.database or url.username or 'of the default name'}"


def sentence(error: BaseException, url: URL) -> str:
    """Return what `error` means for the user of the ledger at `url`."""
    return f"the ledger ({location(url)}) {_meaning(error, url)}"


def _meaning(error: BaseException, url: URL) -> str:
    # SQLAlchemy's own text repeats the statement; the driver's error, below it, says what happened.
    cause = getattr(error, "orig", None) or error
    if meaning := _SQLSTATES.get(getattr(cause, "sqlstate", None) or ""):
        return meaning
    code = getattr(cause, "sqlite_errorname", None) or ""
    if meaning := next((said for prefix, said in _SQLITE_CODES.items() if code.startswith(prefix)), None):
        return meaning
    if isinstance(cause, TimeoutError):
        return "does not answer"
    text = str(cause)
    if meaning := next((said for phrase, said in _PHRASES.items() if phrase in text.lower()), None):
        return meaning
    return f"fails: {_without_secrets(_first_line(text), url) or type(cause).__name__}"


def _first_line(text: str) -> str:
    """Return what the server said, without the driver's account of how it got there."""
    line = text.strip().partition("\n")[0]
    return re.sub(
        r"^(connection failed: )?(connection to server at .* failed: )?(FATAL:\s+)?", "", line
    ).rstrip(".")


def _without_secrets(text: str, url: URL) -> str:
    """Blot out the passwords of `url`: libpq repeats parts of what it cannot parse."""
    options = [url.query.get(option, ()) for option in ("password", "sslpassword")]
    given = [value for option in options for value in ([option] if isinstance(option, str) else option)]
    for secret in filter(None, [url.password, *given]):
        text = text.replace(str(secret), "***")
    return text
