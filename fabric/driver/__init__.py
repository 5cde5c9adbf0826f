"""The driver: objects for programs, and the registry on top of them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fabric.driver.storage import Storage as Storage

__all__ = ["Storage"]


def __getattr__(name: str) -> Any:
    # Imported on first use: the registry needs its own parts of this package only.
    if name == "Storage":
        from fabric.driver.storage import Storage

        return Storage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
