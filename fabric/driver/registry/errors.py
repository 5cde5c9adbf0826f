"""What a client is told: a status, one of the specification's codes, a sentence.

Errors of the store become answers here as well.  The rule behind the table: what may work on another
try is 503 (or 429) with Retry-After; an object that is committed but cannot be read is never "absent".
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from fabric.errors import (
    Busy,
    DeadlineExceeded,
    DiskFailed,
    FabricError,
    FidExpired,
    NoGoodCopy,
    NoSpace,
    NotWritable,
    NoWritableGroup,
    StaleEpoch,
    Unavailable,
)

RETRY_AFTER_S = 2
"""What Retry-After says: longer than a proxy needs to find another group."""

_TRY_AGAIN: tuple[type[FabricError], ...] = (
    NoWritableGroup, Unavailable, DeadlineExceeded, NoSpace, NoGoodCopy, StaleEpoch, NotWritable, DiskFailed,
    FidExpired,
)  # fmt: skip


class RegistryError(Exception):
    """An answer other than success.

    ``code`` is one of the specification's for a 4xx status; ``headers`` are added to the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        detail: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.detail = detail
        self.headers = dict(headers or {})


class BodyInterrupted(Exception):
    """The client went away, or was too slow, before the end of its request's body."""


class BodyMalformed(BodyInterrupted):
    """The body's framing cannot be read any further; what came before is as good as interrupted."""


def error_body(error: RegistryError) -> bytes:
    """The JSON of the specification's section "Error Codes"."""
    details = error.detail if isinstance(error, ManyErrors) else [error.detail]
    assert isinstance(details, list)
    entries = [{"code": error.code, "message": error.message, "detail": detail} for detail in details]
    return msgspec.json.encode({"errors": entries})


class ManyErrors(RegistryError):
    """One answer with an entry for each of ``detail``, a list that is not empty."""


def from_store(error: FabricError) -> RegistryError:
    """The answer for an error of the store that no rule expected."""
    later = {"Retry-After": str(RETRY_AFTER_S)}
    if isinstance(error, Busy):
        return RegistryError(429, "TOOMANYREQUESTS", error.message, {"code": error.code}, later)
    if isinstance(error, _TRY_AGAIN):
        return RegistryError(503, error.code, error.message, None, later)
    return RegistryError(500, error.code, error.message)


# --- refusals, in the specification's order ------------------------------------------------------


def blob_unknown(digest: object) -> RegistryError:
    """404: no such blob in this repository."""
    return RegistryError(404, "BLOB_UNKNOWN", "blob unknown to this repository", {"digest": str(digest)})


def upload_invalid(message: str, detail: object = None) -> RegistryError:
    """400: the upload cannot be started or continued like this."""
    return RegistryError(400, "BLOB_UPLOAD_INVALID", message, detail)


def upload_unknown(upload_id: str) -> RegistryError:
    """404: no such upload in this repository."""
    return RegistryError(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown to this repository", {"id": upload_id})


def digest_invalid(message: str, text: object) -> RegistryError:
    """400: a digest that is malformed, of an unknown algorithm, or not that of the bytes."""
    return RegistryError(400, "DIGEST_INVALID", message, {"digest": shortened(str(text))})


def manifest_blobs_unknown(digests: list[str]) -> RegistryError:
    """404: a manifest names these, and the repository does not have them."""
    return ManyErrors(
        404,
        "MANIFEST_BLOB_UNKNOWN",
        "the manifest references content unknown to this repository",
        [{"digest": digest} for digest in digests],
    )


def manifest_invalid(message: str, detail: object = None) -> RegistryError:
    """400: not a manifest that we take."""
    return RegistryError(400, "MANIFEST_INVALID", message, detail)


def manifest_unknown(reference: object) -> RegistryError:
    """404: no such manifest in this repository."""
    return RegistryError(
        404,
        "MANIFEST_UNKNOWN",
        "manifest unknown to this repository",
        {"reference": shortened(str(reference))},
    )


def manifest_too_large(bytes_max: int) -> RegistryError:
    """413: more bytes than a manifest may have."""
    return RegistryError(413, "SIZE_INVALID", f"a manifest has at most {bytes_max} bytes")


def precondition_failed() -> RegistryError:
    """412: what is there is not what the request's If-Match or If-None-Match wants."""
    return RegistryError(412, "DENIED", "what is there now does not meet the request's conditions")


def quota_exceeded(account: str, limit_bytes: int, used_bytes: int, wanted_bytes: int) -> RegistryError:
    """403: the repositories of an account would hold more bytes than they may."""
    message = (
        f"the quota of {account} is {limit_bytes} bytes, {used_bytes} are used and {wanted_bytes} more are"
        " wanted: delete images there and let garbage collection purge them, or ask for a higher quota"
    )
    detail = {
        "account": account,
        "limit_bytes": limit_bytes,
        "used_bytes": used_bytes,
        "wanted_bytes": wanted_bytes,
    }
    return RegistryError(403, "DENIED", message, detail)


def name_invalid(message: str, text: str) -> RegistryError:
    """400: not a repository name, or a path that no repository name can be part of."""
    return RegistryError(400, "NAME_INVALID", message, {"name": shortened(text)})


def name_unknown(name: str) -> RegistryError:
    """404: no such repository."""
    return RegistryError(404, "NAME_UNKNOWN", "repository unknown to this registry", {"name": name})


def size_invalid(message: str) -> RegistryError:
    """400: a declared length is not the real one."""
    return RegistryError(400, "SIZE_INVALID", message)


def tag_invalid(text: str) -> RegistryError:
    """400: not a tag."""
    return RegistryError(400, "TAG_INVALID", "not a tag", {"tag": shortened(text)})


def unsupported(status: int, message: str, headers: Mapping[str, str] | None = None) -> RegistryError:
    """404 or 405: there is no such endpoint, or not with this method."""
    return RegistryError(status, "UNSUPPORTED", message, None, headers)


def too_many(message: str) -> RegistryError:
    """429: a limit of this process is reached for now."""
    return RegistryError(429, "TOOMANYREQUESTS", message, None, {"Retry-After": str(RETRY_AFTER_S)})


def shortened(text: str, characters_max: int = 300) -> str:
    """A client's text, cut so that an answer stays small."""
    return text if len(text) <= characters_max else text[:characters_max] + "…"
