"""An object store as S3 is spoken: a real server on loopback, with one bucket in a folder."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import psutil
import pytest

from tenantry.local.binaries import find_tool
from tenantry.local.ports import LOOPBACK, free_ports
from tenantry.local.processes import await_condition, is_running

BUCKET = "vectors"
_START_SECONDS = 30.0


@contextmanager
def object_store(folder: Path) -> Iterator[Mapping[str, str]]:
    """Run one; give the variables by which a client finds it and is let in."""
    (port,) = free_ports(1)
    key, secret = "tenantry", secrets.token_urlsafe(24)
    for name in ("buckets", "meta"):
        (folder / name).mkdir(parents=True)
    # What S3 knows of an object beside its content is in files, for not every file system has attributes.
    command = [str(find_tool("versitygw", print)), "--port", f"{LOOPBACK}:{port}", "--quiet", "posix"]
    command += ["--sidecar", str(folder / "meta"), str(folder / "buckets")]
    environment = {**os.environ, "ROOT_ACCESS_KEY": key, "ROOT_SECRET_KEY": secret}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        process = psutil.Process(server.pid)
        come = await_condition(lambda: _answers(port) or not is_running(process), _START_SECONDS)
        assert come, "it does not answer"
        assert is_running(process), (folder / "log").read_text()[-3000:]
        (folder / "buckets" / BUCKET).mkdir()
        yield {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{LOOPBACK}:{port}",
            "AWS_ALLOW_HTTP": "true",
        }
    finally:
        server.kill()
        server.wait(30)


@contextmanager
def bucket_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run one with what lets this process and its children in; give the URL of exports there."""
    with object_store(folder) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield f"s3://{BUCKET}/exports"


def _answers(port: int) -> bool:
    try:
        with urlopen(f"http://{LOOPBACK}:{port}/", timeout=2):
            return True
    except HTTPError:
        return True  # it lets nobody in without a key
    except (URLError, OSError):
        return False
