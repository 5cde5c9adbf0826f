"""The registry's rules put together over one store: what the HTTP handlers work with."""

from __future__ import annotations

import secrets
import time
import uuid
from concurrent.futures import Executor

from fabric.driver.name_cache import NameCache
from fabric.driver.object_store import ObjectStore
from fabric.driver.registry.background import garbage_collection
from fabric.driver.registry.blobs import Blobs
from fabric.driver.registry.bookkeeping import Stamper
from fabric.driver.registry.followers import Followers
from fabric.driver.registry.following import Claims
from fabric.driver.registry.hashing import digests_on
from fabric.driver.registry.hooks.service import Hooks
from fabric.driver.registry.http_body import StreamGate
from fabric.driver.registry.lookups import Lookups
from fabric.driver.registry.manifest_store import ManifestStore
from fabric.driver.registry.parts import Parts
from fabric.driver.registry.quota.accounts import AccountedStore
from fabric.driver.registry.referrers import Referrers
from fabric.driver.registry.repositories import Repositories
from fabric.driver.registry.uploads import Uploads
from fabric.settings import Settings


class Service:
    """Everything a handler needs.  Holds no state of a repository."""

    def __init__(
        self,
        store: ObjectStore,
        settings: Settings,
        executor: Executor,
        writing: Executor,
        cache: NameCache | None = None,
        hooks: Hooks | None = None,
        accounts: AccountedStore | None = None,
    ) -> None:
        """``executor`` computes digests, ``writing`` sends large bodies.

        ``accounts``: the store that ``store`` writes to, whose commits count what repositories own.
        """
        self.settings = settings
        self.accounts = accounts if accounts is not None else AccountedStore(store)
        self.hooks = hooks
        self.store = store
        self.wall_ms = _wall_ms
        self.stamper = stamper = Stamper(_wall_ms, _new_upload_id)
        self.lookups = lookups = Lookups(store, cache, time.monotonic)
        self.blobs = Blobs(store, stamper, lookups)
        digests = digests_on(executor)
        self.uploads = Uploads(store, digests, _new_upload_id, time.monotonic, _wall_ms)
        claims = Claims(_new_upload_id(), _wall_ms)
        self.followers = Followers(store, digests, claims)
        self.parts = Parts(store, self.uploads, digests, _new_upload_id, claims, self.followers.follow)
        self.manifests = ManifestStore(store, settings.manifest_bytes_max, stamper, lookups)
        self.referrers = Referrers(store, self.manifests)
        self.repositories = Repositories(store)
        self.garbage = garbage_collection(store, settings, stamper)
        self.incoming = StreamGate(settings.registry_uploads_max)
        self.outgoing = StreamGate(settings.registry_downloads_max)
        self.writing = writing


def _new_upload_id() -> str:
    """A UUID in form, all 128 bits of it random: who does not know it cannot guess it."""
    return str(uuid.UUID(bytes=secrets.token_bytes(16)))


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
