"""``Storage`` over a whole fabric does what is expected of a storage driver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fabric.driver import Storage
from tests.e2e.conftest import FabricUp
from tests.unit.driver.storage_expectations import StorageExpectations, name

__all__ = ["name"]


@pytest.fixture(scope="module")
def storage(shared_fabric: FabricUp) -> Iterator[Storage]:
    with Storage(shared_fabric.proxy) as storage:
        yield storage


class TestStorage(StorageExpectations):
    """All of them."""
