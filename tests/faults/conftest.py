"""What the fault tests share: the fixtures of the integration tests, whose cluster and clients they use."""

from __future__ import annotations
