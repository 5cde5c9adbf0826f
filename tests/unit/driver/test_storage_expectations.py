"""``Storage`` over a proxy that keeps objects in memory does what is expected of a storage driver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fabric.driver import Storage
from tests.unit.driver.fake_proxy import MemoryProxy
from tests.unit.driver.storage_expectations import StorageExpectations, name
from tests.unit.node.echo import running

__all__ = ["name"]


@pytest.fixture(scope="module")
def storage() -> Iterator[Storage]:
    with running(MemoryProxy()) as proxy, Storage(proxy.endpoint) as storage:
        yield storage


class TestStorage(StorageExpectations):
    """All of them."""
