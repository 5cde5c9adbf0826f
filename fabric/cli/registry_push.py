"""``fabric registry push-blob``: one large file to a registry, through several connections."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from fabric.cli.files import write_json
from fabric.cli.output import progress_bar, reported_errors
from fabric.settings import MIB

PASSWORD = "FABRIC_REGISTRY_PASSWORD"
TOKEN = "FABRIC_REGISTRY_TOKEN"
LOOPBACK = ("localhost", "127.", "[::1]")


@click.command("push-blob")
@click.argument("target", metavar="REGISTRY/NAME")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--parallel", type=click.IntRange(1, 64), default=4, show_default=True, help="Connections at once."
)
@click.option(
    "--part-mib",
    type=click.IntRange(4, 4096),
    default=64,
    show_default=True,
    help="Size of a part, a multiple of 4: what is lost when a connection breaks.",
)
@click.option(
    "--through", "others", metavar="URL", multiple=True, help="Another address of the registry; repeatable."
)
@click.option("--user", default="", help=f"Log in under this name; the password is in {PASSWORD}, or asked.")
@click.option("--fresh", is_flag=True, help="Do not go on with an earlier push of this file.")
def command(
    target: str, file: Path, parallel: int, part_mib: int, others: tuple[str, ...], user: str, fresh: bool
) -> None:
    """Push FILE as a blob of REGISTRY/NAME, and print its digest.

    The registry must be a fabric's, with uploads in parts.  A push that was broken off goes on where it was
    when it is started again.  REGISTRY is HOST:PORT or a URL; without a scheme it is spoken to by TLS, unless
    it is on this machine.  A bearer token is taken from FABRIC_REGISTRY_TOKEN.
    """
    if part_mib % 4:
        raise click.UsageError("--part-mib is a multiple of 4")
    url, name = parse_target(target)
    authorization = _authorization(user)
    with reported_errors(), file.open("rb") as opened:
        about = os.fstat(opened.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise click.UsageError(f"{file} is no regular file")
        note = Note(file, url, name, about)
        location = "" if fresh else note.location()
        push = _push([url, *others], name, opened.fileno(), about.st_size, parallel, part_mib * MIB)
        with _reported():
            digest = asyncio.run(push(authorization, location, note))
    click.echo(digest)


def parse_target(text: str) -> tuple[str, str]:
    """``REGISTRY/NAME`` as (URL, name)."""
    from fabric.driver.registry.errors import RegistryError
    from fabric.driver.registry.names import repository_name

    if "://" not in text:
        text = f"{'http' if text.startswith(LOOPBACK) else 'https'}://{text}"
    parts = urlsplit(text)
    if not parts.netloc or parts.scheme not in ("http", "https"):
        raise click.UsageError(f"{text!r} is not REGISTRY/NAME, such as registry.example:5000/team/models")
    try:
        return f"{parts.scheme}://{parts.netloc}", repository_name(parts.path.strip("/"))
    except RegistryError as error:
        raise click.UsageError(f"{text!r}: {error.message}") from error


def _authorization(user: str) -> str:
    if user:
        password = os.environ.get(PASSWORD)
        if password is None:
            password = str(click.prompt("Password", hide_input=True, err=True))
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    token = os.environ.get(TOKEN, "")
    return f"Bearer {token}" if token else ""


@contextmanager
def _reported() -> Iterator[None]:
    from fabric.cli.blob_push import PushError

    try:
        yield
    except* PushError as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise click.ClickException(f"{first}; start it again to go on") from first


class Note:
    """Where an unfinished push of a file is remembered: ``$XDG_CACHE_HOME/fabric/pushes``."""

    def __init__(self, file: Path, url: str, name: str, about: os.stat_result) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        key = hashlib.sha256(f"{url}\n{name}\n{file.resolve()}".encode()).hexdigest()[:32]
        self.path = cache / "fabric" / "pushes" / f"{key}.json"
        self._file = {"size": about.st_size, "mtime_ns": about.st_mtime_ns, "inode": about.st_ino}

    def location(self) -> str:
        """Of the upload; empty when there is none, or the file has changed since."""
        try:
            noted: dict[str, Any] = json.loads(self.path.read_text())
        except (FileNotFoundError, ValueError):
            return ""
        return str(noted.get("location", "")) if noted.get("file") == self._file else ""

    def write(self, location: str) -> None:
        """Remember it.  Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {"location": location, "file": self._file})

    def forget(self) -> None:
        """It is done."""
        self.path.unlink(missing_ok=True)


def _push(urls: list[str], name: str, descriptor: int, size: int, parallel: int, part_bytes: int) -> Any:
    from fabric.cli.blob_push import BlobPush, UploadGone, file_digest, new_session

    async def push(authorization: str, location: str, note: Note) -> str:
        async with new_session(parallel, authorization) as session:
            with progress_bar("push", size) as advance:
                blob = BlobPush(session, urls, name, descriptor, size, advance)
                try:
                    if location:
                        advance(await blob.resume(location))
                except UploadGone:
                    location = ""
                if not location:
                    await blob.begin()
                    note.write(blob.location)
                # Both read the file once, side by side.
                digest = asyncio.create_task(file_digest(descriptor, size))
                await blob.send(parallel, part_bytes)
                found = await digest
            with progress_bar("digest", size) as advance:
                seen = 0

                def on_digested(count: int) -> None:
                    nonlocal seen
                    advance(count - seen)
                    seen = count

                await blob.finish(found, on_digested)
            note.forget()
            return found

    return push
