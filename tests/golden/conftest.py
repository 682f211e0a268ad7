"""`pytest --update-golden` writes the expected files anew; `git diff` then shows what has changed."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("tenantry").addoption(
        "--update-golden", action="store_true", help="write tests/golden/output/ anew instead of comparing"
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether the expected files are to be written."""
    # Known only where this folder is named on the command line: pytest reads no other conftest in time.
    return bool(request.config.getoption("--update-golden", default=False))
