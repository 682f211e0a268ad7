"""Files that are replaced at once, and the lock that survives its own deletion."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from tenantry.local import files, ports
from tenantry.local.certificates import Certificates
from tenantry.local.errors import LocalError, plain_os_errors


def test_a_private_file_is_replaced_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    files.write_private(path, b"old")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(LocalError, match="writing: the disk is full"), plain_os_errors("writing"):
        files.write_private(path, b"new")
    assert path.read_bytes() == b"old"


def test_who_waits_for_a_lock_gets_it_although_the_holder_deleted_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "environment" / "lock"
    waiting = threading.Event()
    seen: list[bool] = []

    def second() -> None:
        with files.locked(path, waiting.set):
            seen.append(path.exists())

    thread = threading.Thread(target=second)
    with files.locked(path, lambda: pytest.fail("nobody else has it")):
        thread.start()
        assert waiting.wait(60)
        path.unlink()
        path.parent.rmdir()
    thread.join(60)
    assert seen == [True]


def test_certificates_are_private_and_made_once(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "certificates")
    (tmp_path / "certificates.new").mkdir()  # of a crash
    certificates.ensure("10.96.0.1")
    content = {path.name: path.read_bytes() for path in certificates.folder.iterdir()}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in certificates.folder.iterdir())
    assert stat.S_IMODE(certificates.folder.stat().st_mode) == 0o700
    certificates.ensure("10.96.0.1")
    assert {path.name: path.read_bytes() for path in certificates.folder.iterdir()} == content


def test_free_ports_are_different_and_free() -> None:
    found = ports.free_ports(20)
    assert len(set(found)) == 20
    assert all(map(ports.is_free, found))
