"""Argo CD's way to the health of an object: a Lua 5.1 interpreter with only what Argo CD lets a script use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lupa import lua51

FOLDER = Path(__file__).resolve().parents[3] / "manifests" / "argocd"
HEALTH_LUA = (FOLDER / "health.lua").read_text()

STATUSES = frozenset({"Healthy", "Suspended", "Progressing", "Degraded", "Missing", "Unknown"})

# Argo CD opens base, package, table and an `os` of two functions, unless an administrator sets useOpenLibs.
_SANDBOX = """
debug.setmetatable("", nil)
local time, date = os.time, os.date
for _, name in ipairs({ "string", "math", "io", "debug", "coroutine", "python", "dofile", "loadfile" }) do
  _G[name] = nil
  package.loaded[name] = nil
end
os = { time = time, date = date }
package.loaded.os = os
"""


@dataclass(frozen=True)
class Health:
    """What Argo CD shows of an object."""

    status: str
    message: str = ""


def run(script: str, item: dict[str, Any]) -> Any:
    """Run a script with `obj` in Argo CD's sandbox; return what it returns. Raises lua51.LuaError."""
    lua = lua51.LuaRuntime(unpack_returned_tuples=True, register_eval=False, register_builtins=False)
    lua.execute(_SANDBOX)
    lua.globals().obj = _table(lua, item)
    return lua.execute(script)


def health(item: dict[str, Any], script: str = HEALTH_LUA) -> Health:
    """Return the health that a script gives an object; what Argo CD would refuse fails the test."""
    if item["metadata"].get("deletionTimestamp"):
        return Health("Progressing", "Pending deletion")  # decided before any script is asked
    answer = run(script, item)
    assert lua51.lua_type(answer) == "table", f"the script returned {answer!r}"
    found = {str(key): str(value) for key, value in answer.items()}
    assert found.keys() <= {"status", "message"}
    assert found["status"] in STATUSES
    return Health(**found)


def _table(lua: Any, value: Any) -> Any:
    """Turn JSON into Lua as Argo CD does: every number is a float, null is nil."""
    if isinstance(value, dict):
        return lua.table_from({key: _table(lua, item) for key, item in value.items() if item is not None})
    if isinstance(value, list):
        return lua.table_from([_table(lua, item) for item in value])
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
