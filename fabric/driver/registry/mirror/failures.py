"""Why an upstream's answer could not be had or used, and what the client is told then."""

from __future__ import annotations

from fabric.driver.registry.errors import RETRY_AFTER_S, RegistryError

RETRY_AFTER_S_MAX = 3600


class UpstreamFailed(Exception):
    """No answer that can be used; what is here already may be served all the same."""

    status = 503
    code = "UPSTREAM_UNAVAILABLE"

    def __init__(self, message: str, retry_after_s: float = RETRY_AFTER_S) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = min(max(1.0, retry_after_s), RETRY_AFTER_S_MAX)

    def answer(self) -> RegistryError:
        """What a client is told that nothing can be served to."""
        later = {"Retry-After": str(round(self.retry_after_s))}
        return RegistryError(self.status, self.code, self.message, None, later)


class UpstreamBusy(UpstreamFailed):
    """It wants to be asked less often."""

    status = 429
    code = "TOOMANYREQUESTS"


class UpstreamWrong(UpstreamFailed):
    """It answered something that is not what it must be.  Nothing of it is stored."""

    status = 502
    code = "UPSTREAM_INVALID"


class NotStored(UpstreamFailed):
    """It answered as it should, and a rule of this registry keeps that out: a quota, an immutable tag."""

    def __init__(self, error: RegistryError) -> None:
        super().__init__(error.message)
        self._error = error

    def answer(self) -> RegistryError:
        """What the rule says."""
        return self._error


class UpstreamDenies(UpstreamFailed):
    """It does not let this registry in, or not there."""

    status = 403
    code = "DENIED"
