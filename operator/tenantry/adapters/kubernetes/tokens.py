"""Bearer tokens that end: read or fetched again before each request that needs it.

The library reads the token file of a kubeconfig once, and a pod's once in a minute. A pod's token is written anew
by the kubelet every hour or so, and one that is bound to an object ends with it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from kubernetes.aio.client.configuration import Configuration

logger = logging.getLogger(__name__)


class TokenFile:
    """A hook of the library's: takes the token from a file whenever that has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None

    def __call__(self, configuration: Configuration) -> None:
        """Called before each request; where the file cannot be read, the token stays as it was."""
        try:
            # A volume of a pod is replaced as a whole, by a link to another folder.
            found = self._path.stat()
            stamp = (found.st_ino, found.st_mtime_ns)
            if stamp == self._stamp:
                return
            token = self._path.read_text().strip()
        except (OSError, ValueError) as error:
            if self._stamp is not None:
                logger.warning("The token in %s cannot be read, the old one is used: %s", self._path, error)
                self._stamp = None
            return
        if token:
            configuration.api_key["BearerToken"] = f"Bearer {token}"
            self._stamp = stamp


class ExecPlugin:
    """A hook of the library's: has the kubeconfig's program run again when its token is about to end."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._running = False

    async def __call__(self, configuration: Configuration) -> None:
        """Called before each request; the library knows when the token ends, and logs what the program fails with."""
        if self._running:
            return  # the old one is good for some minutes more
        self._running = True
        try:
            await self._loader.load_from_exec_plugin()
        finally:
            self._running = False
        configuration.api_key["BearerToken"] = self._loader.token


def renew(configuration: Configuration, hook: TokenFile | ExecPlugin) -> None:
    """Have a hook called before each request."""
    configuration.refresh_api_key_hook = hook  # type: ignore[assignment]


def renew_as_loaded(configuration: Configuration, loader: Any) -> None:
    """Have the token of a kubeconfig renewed that the library has loaded, where it is one that ends."""
    user = loader._user  # the library has no other way to who was chosen
    if hasattr(loader, "exec_plugin_expiry"):
        renew(configuration, ExecPlugin(loader))
    elif user and user.safe_get("tokenFile") and not user.safe_get("token") and not user.safe_get("exec"):
        renew(configuration, TokenFile(Path(user.path).parent / str(user["tokenFile"])))
