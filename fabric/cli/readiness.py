"""Will pushes succeed now?  Asked of the roles themselves, over the wire."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

import zmq

from fabric.errors import FabricError
from fabric.node.ask import ask
from fabric.node.sockets import make_socket
from fabric.wire.messages import ClusterStatus, GetStatus, Ping

ASK_TIMEOUT_S = 0.5
LOOK_AGAIN_MS = 50


def what_is_missing(master: str, proxy: str, registry: str, groups: int) -> str:
    """Why a push would fail; empty when none would.

    ``groups`` groups must be writable, the proxy must answer, the registry must serve its API.
    """
    try:
        status = ask(master, GetStatus(0), ASK_TIMEOUT_S)
        assert isinstance(status, ClusterStatus)
        unwritable = _unwritable(status, groups)
        if unwritable:
            return unwritable
        ask(proxy, Ping(0), ASK_TIMEOUT_S)
    except FabricError as error:
        return error.message
    return _registry_problem(registry)


def wait_until_ready(
    missing: Callable[[], str], publish: str, stop: threading.Event, tell: Callable[[str], None]
) -> bool:
    """Block until ``missing()`` is empty; False when ``stop`` was set first.

    The master's publications tell when to look again; since they may be lost, we look by ourselves too.
    ``tell`` gets what is missing each time that it changes.
    """
    changes = make_socket(zmq.Context.instance(), zmq.SUB)
    try:
        changes.connect(publish)
        before = ""
        while not stop.is_set():
            problem = missing()
            if not problem:
                return True
            if problem != before:
                tell(problem)
                before = problem
            if changes.poll(LOOK_AGAIN_MS):
                changes.recv_multipart()
        return False
    finally:
        changes.close(linger=0)


def _unwritable(status: ClusterStatus, groups: int) -> str:
    writable = sum(group.state == "WRITABLE" for group in status.groups)
    if writable >= groups:
        return ""
    others = [
        f"group {group.group} is {group.state}" + (f" ({group.reason})" if group.reason else "")
        for group in status.groups
        if group.state != "WRITABLE"
    ]
    return "; ".join(others) or "no chunk server has reported to the master"


def _registry_problem(registry: str) -> str:
    address = urlsplit(registry)
    assert address.hostname is not None
    connection = _connection(address.scheme, address.hostname, address.port)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"the registry at {registry} does not answer: {error}"
    finally:
        connection.close()
    return "" if status == 200 else f"the registry at {registry} answers with status {status}"


def _connection(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=ASK_TIMEOUT_S)
    # Our own process, asked by its address, which its certificate need not name; nothing secret is sent.
    anything = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anything.check_hostname = False
    anything.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=ASK_TIMEOUT_S, context=anything)
