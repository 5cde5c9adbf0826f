"""``fabric up``: every role on this machine, kept alive."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from fabric.cli.files import write_json
from fabric.cli.options import HOST_PORT, load_settings
from fabric.cli.plan import (
    LAYOUT_FILE,
    Front,
    Layout,
    LayoutMismatch,
    Ports,
    RoleEntry,
    decide_layout,
    plan_roles,
    read_layout,
    run_description,
)
from fabric.cli.ports import NoFreePort, choose_port, free_ports_from, is_free, local, next_port
from fabric.cli.readiness import wait_until_ready, what_is_missing
from fabric.cli.registry import ACCESS_FILE, load_access_file
from fabric.cli.registry_hooks import load_hooks_file
from fabric.cli.registry_mirrors import load_mirrors_file
from fabric.cli.supervisor import Supervisor

LOCK_FILE = "up.lock"
RUN_FILE = "run.json"

SILENCE_S = 5.0
"""A start that takes longer says what it waits for."""


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default="fabric-data",
    show_default=True,
    help="Directory of everything that is stored.",
)
@click.option(
    "--replicas", type=click.IntRange(1, 16), help="Copies of each fragment.  [default: as before, or 3]"
)
@click.option("--groups", type=click.IntRange(1, 1000), help="Replica groups.  [default: as before, or 1]")
@click.option(
    "--http", type=HOST_PORT, default="127.0.0.1:5000", show_default=True, help="Where the registry listens."
)
@click.option(
    "--proxy", type=HOST_PORT, default="127.0.0.1:7420", show_default=True, help="Where the proxy listens."
)
@click.option(
    "--master",
    type=HOST_PORT,
    default="127.0.0.1:7400",
    show_default=True,
    help="Where the master listens; it publishes on the next port.",
)
@click.option(
    "--chunks",
    type=HOST_PORT,
    default="127.0.0.1:7410",
    show_default=True,
    help="Where the first chunk server listens; the others follow on free ports upward."
    "  Chosen at the first start and remembered.",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file for all roles.",
)
@click.option("--access", type=ACCESS_FILE, help="TOML file for the registry: logins, rules, TLS, limits.")
@click.option("--hooks", type=ACCESS_FILE, help="TOML file for the registry: webhooks.")
@click.option(
    "--mirrors", type=ACCESS_FILE, help="TOML file for the registry: what comes from other registries."
)
@click.option(
    "--registries",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Registry processes that share the registry's port; one uses little more than one core.",
)
@click.option("--v1", is_flag=True, help="Let the registry answer Docker up to 1.5 too.")
def command(
    data: Path,
    replicas: int | None,
    groups: int | None,
    http: str,
    proxy: str,
    master: str,
    chunks: str,
    config: Path | None,
    access: Path | None,
    hooks: Path | None,
    mirrors: Path | None,
    registries: int,
    v1: bool,
) -> None:
    """Run all roles on this machine as child processes, restarted when they die.

    Prints one line beginning "fabric is ready" when pushes will succeed.  Ctrl-C or SIGTERM stops
    everything in order.  A port of 0 takes any free one.
    """
    load_settings(config)  # so that a mistake in it is told once, here
    if hooks is not None:
        load_hooks_file(hooks)  # likewise
    if mirrors is not None:
        load_mirrors_file(mirrors)
    front = _front(access)._replace(
        v1=v1,
        hooks=hooks.absolute() if hooks is not None else None,
        mirrors=mirrors.absolute() if mirrors is not None else None,
        registries=registries,
    )
    data = data.absolute()
    with _locked(data):
        try:
            known = read_layout(data)
            ports = _choose_ports(master, proxy, http, known.chunk_endpoints if known else ())
            taken = {*ports, *(known.chunk_endpoints if known else ())}
            layout = decide_layout(
                known, replicas, groups, lambda count: free_ports_from(chunks, count, taken)
            )
            _refuse_taken_ports(layout, ports)
            write_json(data / LAYOUT_FILE, msgspec.to_builtins(layout))
        except (LayoutMismatch, NoFreePort) as error:
            raise click.ClickException(str(error)) from error
        roles = plan_roles(layout, ports, data, config.absolute() if config else None, front)
        status = asyncio.run(_run(data, layout, ports, roles, front))
    sys.exit(status)


def _front(access: Path | None) -> Front:
    """What the access file means for this start.  Raises BadAccessFile."""
    if access is None:
        return Front()
    return Front(access.absolute(), load_access_file(access).certificate is not None)


@contextlib.contextmanager
def _locked(data: Path) -> Iterator[None]:
    """One ``fabric up`` a directory.  The lock ends with the process, however it ends."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(data / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise click.ClickException(f"cannot use {data}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise click.ClickException(f"another `fabric up` is running on {data}") from None
    try:
        yield
    finally:
        os.close(descriptor)


def _choose_ports(master: str, proxy: str, http: str, kept: Iterable[str]) -> Ports:
    """For each role one of its own: what was chosen is not in use yet, and would be found free once more."""
    taken = set(kept)
    master = choose_port(master, in_a_row=2, taken=taken)
    taken |= {master, next_port(master)}
    proxy = choose_port(proxy, taken=taken)
    taken.add(proxy)
    return Ports(master, next_port(master), proxy, choose_port(http, taken=taken))


def _refuse_taken_ports(layout: Layout, ports: Ports) -> None:
    listeners = {
        "the master": ports.master,
        "the master's publications": ports.publish,
        **{f"chunk-{number}": endpoint for number, endpoint in enumerate(layout.chunk_endpoints, start=1)},
        "the proxy": ports.proxy,
        "the registry": ports.registry,
    }
    taken = [f"{endpoint.removeprefix('tcp://')} ({who})" for who, endpoint in listeners.items()
             if not is_free(endpoint)]  # fmt: skip
    if taken:
        raise click.ClickException(f"already in use by another program: {', '.join(taken)}")


def _report(text: str) -> None:
    click.echo(text, err=True)


async def _run(data: Path, layout: Layout, ports: Ports, roles: list[RoleEntry], front: Front) -> int:
    """Keep the roles running until a signal; returns the exit status."""
    stop = asyncio.Event()
    stopping: list[asyncio.Task[None]] = []
    _on_signals(stop, stopping)
    run_file = data / RUN_FILE

    def on_change(pids: dict[str, int]) -> None:
        try:
            write_json(run_file, run_description(roles, pids))
        except OSError as error:
            _report(f"cannot write {run_file}: {error.strerror}")

    children = [role.child() for role in roles]
    supervisor = Supervisor(children, data / "logs", on_change=on_change, report=_report)
    try:
        await supervisor.start()
        return await _serve(supervisor, stop, layout, ports, data, front)
    finally:
        stopping.append(asyncio.create_task(supervisor.stop()))
        with contextlib.suppress(asyncio.CancelledError):
            await stopping[0]
        run_file.unlink(missing_ok=True)


async def _serve(
    supervisor: Supervisor, stop: asyncio.Event, layout: Layout, ports: Ports, data: Path, front: Front
) -> int:
    """Tell when all is ready, then wait for the signal to stop.  Returns the exit status."""
    master, proxy, registry = local(ports.master), local(ports.proxy), front.url(ports.registry)
    given_up_waiting = threading.Event()
    problems = deque(["the roles are starting"], maxlen=1)
    ready = asyncio.create_task(
        asyncio.to_thread(
            wait_until_ready,
            lambda: what_is_missing(master, proxy, registry, layout.groups),
            local(ports.publish),
            given_up_waiting,
            problems.append,
        )
    )
    patience = asyncio.create_task(_tell_what_is_missing(problems))
    stopped = asyncio.create_task(stop.wait())
    try:
        ends: set[asyncio.Future[Any]] = {ready, supervisor.given_up, stopped}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        patience.cancel()
        if supervisor.given_up.done():
            _report(f"{supervisor.given_up.result()}\ngiving up: the fabric cannot start like this")
            return 1
        if ready.done() and ready.result():
            supervisor.settled = True
            click.echo(
                f"fabric is ready: registry {registry}, proxy {proxy}, master {master},"
                f" {layout.groups} x {layout.replicas} replicas in {data}"
            )
            await stopped
        return 0
    finally:
        given_up_waiting.set()
        patience.cancel()
        stopped.cancel()
        await ready


async def _tell_what_is_missing(problems: deque[str]) -> None:
    told = ""
    while True:
        await asyncio.sleep(SILENCE_S)
        if problems[-1] != told:
            told = problems[-1]
            _report(f"not ready yet: {told}")


def _on_signals(stop: asyncio.Event, stopping: list[asyncio.Task[None]]) -> None:
    """The first signal stops in order, the second at once."""

    def on_signal() -> None:
        if stop.is_set():
            for task in stopping:
                task.cancel()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGTERM:
            loop.add_signal_handler(number, on_signal)
