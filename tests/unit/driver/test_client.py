"""The client against a proxy that says what the test wants, over real loopback sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
from itertools import pairwise

import pytest
import zmq

from fabric.driver import client as client_module
from fabric.driver.client import QUESTIONS_TOGETHER, Client
from fabric.errors import (
    BadChecksum,
    Busy,
    DeadlineExceeded,
    Internal,
    NotFound,
    NoWritableGroup,
    Precondition,
    Unavailable,
)
from fabric.settings import FRAGMENT_BYTES_MAX, KIB, Settings
from fabric.wire import codec
from fabric.wire.messages import Found, FragmentData, ObjectInfo, Ping, Pong, PutFragment, Stat
from tests.unit.driver.fake_client import settle
from tests.unit.driver.fake_proxy import ScriptedProxy
from tests.unit.node.echo import WAIT_MS, Running, running

PONG = Pong("proxy", "p", "1")
FOUND = Found(ObjectInfo("a", 1, 1, 1, "", 0, {}, False))
NOWHERE = "tcp://127.0.0.1:1"


def with_client(endpoint: str, scenario, **settings: float):
    """Run ``scenario(client)`` in an event loop of its own; what the loop complained about is an error."""

    async def whole():
        complaints: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(str(context)))
        client = Client(endpoint, Settings(**settings))
        await client.start()
        try:
            return await asyncio.wait_for(scenario(client), WAIT_MS / 1000)
        finally:
            await client.close()
            assert complaints == []

    return asyncio.run(whole())


def ask(proxy: ScriptedProxy, **settings: float):
    """One ``Stat`` to this proxy: the answer, or the error that it raises."""

    async def scenario(client: Client):
        return (await client.request(Found, Stat(0, "a")))[0]

    with running(proxy) as it:
        return with_client(it.endpoint, scenario, **settings)


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """The pauses that the client makes, which here take no time."""
    made: list[float] = []
    real_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        made.append(seconds)
        await real_sleep(0)

    monkeypatch.setattr(client_module.asyncio, "sleep", sleep)
    return made


def test_an_answer_comes_back_with_its_payload_and_the_request_carries_a_deadline():
    data = bytes(range(256)) * 1024

    async def scenario(client: Client):
        return await client.request(FragmentData, PutFragment(0, 5), data)

    proxy = ScriptedProxy((FragmentData(1, 0, 5), data))
    with running(proxy) as it:
        answer, payload = with_client(it.endpoint, scenario, write_patience_s=3.0)
    assert answer == FragmentData(1, 0, 5)
    assert bytes(payload) == data
    assert 2_900 <= proxy.received[0].deadline_ms <= 3_000


@pytest.mark.parametrize("data", [None, b"data"])
def test_many_questions_go_ahead_while_others_are_made_but_not_what_has_a_payload(data: bytes | None):
    arrived = threading.Semaphore(0)

    class Counting(ScriptedProxy):
        def receive(self, message: object, *others):
            arrived.release()
            return super().receive(message, *others)

    async def scenario(client: Client):
        await client.request(Pong, Ping(0))  # connected
        arrived.acquire()
        message = Ping(0) if data is None else PutFragment(0, 5)
        asked = [asyncio.create_task(client.request(Pong, message, data)) for _ in range(QUESTIONS_TOGETHER)]
        ahead: list[bool] = []

        async def in_the_same_turn():
            # The event loop itself waits here, and so sends nothing.
            ahead.append(arrived.acquire(timeout=WAIT_MS / 1000 if data is None else 0.05))

        await asyncio.gather(in_the_same_turn(), *asked)
        return ahead

    with running(Counting(*[PONG] * (QUESTIONS_TOGETHER + 1))) as it:
        assert with_client(it.endpoint, scenario) == [data is None]


def test_many_requests_at_once_each_get_their_own_answer():
    def found(message):
        return Found(ObjectInfo(message.path, 1, 1, 1, "", 0, {}, False))

    async def scenario(client: Client):
        answers = await asyncio.gather(
            *(client.request(Found, Stat(0, f"path {number}")) for number in range(500))
        )
        assert [answer.info.path for answer, _ in answers] == [f"path {number}" for number in range(500)]

    with running(ScriptedProxy(found)) as it:
        with_client(it.endpoint, scenario)


@pytest.mark.parametrize(
    "error", [NotFound("a"), Precondition("generation"), BadChecksum("damaged"), Internal("a bug")]
)
def test_what_cannot_get_better_is_raised_at_once(error):
    proxy = ScriptedProxy(error, FOUND)
    with pytest.raises(type(error), match=error.message):
        ask(proxy)
    assert len(proxy.received) == 1


def test_what_may_get_better_is_asked_again_with_growing_pauses(pauses):
    proxy = ScriptedProxy(*[Busy("full"), NoWritableGroup("syncing"), Unavailable("no fids")] * 3, FOUND)
    assert ask(proxy) == FOUND
    assert len(proxy.received) == 10
    assert len(pauses) == 9
    limits = [min(client_module.PAUSE_S * 2**number, client_module.PAUSE_S_MAX) for number in range(1, 10)]
    for pause, limit in zip(pauses, limits, strict=True):
        assert limit / 2 <= pause <= limit


def test_patience_ends_with_the_last_error():
    proxy = ScriptedProxy(NoWritableGroup("chunk-2 is OFFLINE"))
    with pytest.raises(NoWritableGroup, match="chunk-2 is OFFLINE"):
        ask(proxy, write_patience_s=0.2)
    assert len(proxy.received) > 1
    deadlines = [message.deadline_ms for message in proxy.received]
    assert all(later <= earlier for earlier, later in pairwise(deadlines))


def test_a_silent_proxy_is_deadline_exceeded():
    with pytest.raises(DeadlineExceeded):
        ask(ScriptedProxy(None), write_patience_s=0.1)


def test_each_request_is_given_up_at_its_own_time_and_none_before():
    async def scenario(client: Client):
        loop = asyncio.get_running_loop()
        began, ended = loop.time(), {}

        async def wait(patience_s: float) -> None:
            with pytest.raises(DeadlineExceeded):
                await client.request(Found, Stat(0, "a"), patience_s=patience_s)
            ended[patience_s] = loop.time() - began

        # A longer one sets the timer first; a shorter one, and one as long as the first, come behind.
        await asyncio.gather(*(wait(patience_s) for patience_s in (0.5, 0.1, 0.3, 0.501)))
        assert list(ended) == [0.1, 0.3, 0.5, 0.501]
        assert all(took_s >= patience_s - 0.005 for patience_s, took_s in ended.items())
        assert client._open == {}

    with running(ScriptedProxy(None)) as it:
        with_client(it.endpoint, scenario)


def test_a_lost_answer_is_asked_for_again():
    proxy = ScriptedProxy(None, FOUND)
    assert ask(proxy, request_timeout_s=0.05) == FOUND


def test_an_answer_of_another_kind_is_a_bug_and_not_a_result():
    with pytest.raises(Internal, match="expected Found, got Pong"):
        ask(ScriptedProxy(PONG))


def test_a_late_answer_does_not_reach_a_later_request():
    late: list = []

    def keep(message):
        late.append(message)

    async def scenario(client: Client):
        with pytest.raises(DeadlineExceeded):
            await client.request(Found, Stat(0, "first"), patience_s=0.05)
        answer, _ = await client.request(Pong, Ping(0))
        assert answer == PONG
        assert client._open == {}
        assert client._peer.unanswered == set()

    with running(ScriptedProxy(keep, PONG)) as it:
        with_client(it.endpoint, scenario)
    assert len(late) == 1


def test_a_proxy_that_is_not_there_is_unavailable():
    async def scenario(client: Client):
        with pytest.raises(Unavailable):
            await client.request(Found, Stat(0, "a"), patience_s=0.1)

    with_client(NOWHERE, scenario)


def free_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def test_a_proxy_that_starts_later_is_waited_for():
    endpoint = free_endpoint()

    async def scenario(client: Client):
        asking = asyncio.create_task(client.request(Found, Stat(0, "a")))
        await settle()
        started = Running(ScriptedProxy(FOUND), endpoint, None, (), lambda job: None)
        started.thread.start()
        try:
            return (await asking)[0]
        finally:
            started.loop.stop()
            started.thread.join(5)

    assert with_client(endpoint, scenario) == FOUND


def test_a_proxy_that_dies_with_requests_open_and_comes_back_answers_them():
    async def scenario(client: Client):
        asking = [asyncio.create_task(client.request(Found, Stat(0, "a"))) for _ in range(5)]
        while len(silent.received) < 5:
            await asyncio.sleep(0)
        first.loop.stop()
        await asyncio.to_thread(first.thread.join, 5)
        with running(ScriptedProxy(FOUND), listen=first.endpoint):
            answers = await asyncio.gather(*asking)
        assert [answer for answer, _ in answers] == [FOUND] * 5

    silent = ScriptedProxy(None)
    first = Running(silent, "tcp://127.0.0.1:0", None, (), lambda job: None)
    first.thread.start()
    with_client(first.endpoint, scenario)


def test_close_ends_open_requests_at_once_whatever_patience_they_have():
    async def scenario(client: Client):
        asking = [asyncio.create_task(client.request(Found, Stat(0, "a"), patience_s=60)) for _ in range(3)]
        while len(proxy.received) < 3:
            await asyncio.sleep(0)
        await client.close()
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable] * 3
        with pytest.raises(Unavailable):
            await client.request(Found, Stat(0, "a"), patience_s=60)
        await client.close()

    proxy = ScriptedProxy(None)
    with running(proxy) as it:
        with_client(it.endpoint, scenario)


def test_close_ends_a_request_that_is_pausing_before_it_asks_again():
    async def scenario(client: Client):
        asking = asyncio.create_task(client.request(Found, Stat(0, "a"), patience_s=60))
        while not proxy.received:
            await asyncio.sleep(0)
        await client.close()
        with pytest.raises(Unavailable):
            await asking
        assert len(proxy.received) <= 2

    proxy = ScriptedProxy(Busy("full"))
    with running(proxy) as it:
        with_client(it.endpoint, scenario)


def test_a_cancelled_request_leaves_nothing_behind():
    async def scenario(client: Client):
        asking = asyncio.create_task(client.request(Found, Stat(0, "a")))
        while not proxy.received:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert (client._open, client._peer.unanswered) == ({}, set())
        assert (await client.request(Pong, Ping(0)))[0] == PONG

    proxy = ScriptedProxy(None, PONG)
    with running(proxy) as it:
        with_client(it.endpoint, scenario)


def test_more_bytes_than_the_sockets_take_are_sent_in_the_end():
    """Far more than the high-water mark of messages, while the proxy does not read at first."""
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.RCVHWM, 1)
    router.setsockopt(zmq.RCVBUF, 64 * KIB)
    router.bind("tcp://127.0.0.1:0")
    data = bytes(256 * KIB)

    def answer_all():
        for _ in range(150):
            route, _, header, _ = router.recv_multipart()
            request_id, _ = codec.decode(header)
            router.send_multipart([route, b"", codec.encode(request_id, PONG)])

    async def scenario(client: Client):
        asking = [asyncio.create_task(client.request(Pong, PutFragment(0, 1), data)) for _ in range(150)]
        while not client._peer.waiting:
            await asyncio.sleep(0.001)  # polls: the socket tells nobody that it is full
        await asyncio.to_thread(answer_all)
        assert [answer for answer, _ in await asyncio.gather(*asking)] == [PONG] * 150

    try:
        with_client(router.getsockopt_string(zmq.LAST_ENDPOINT), scenario)
    finally:
        context.destroy(0)


def test_garbage_from_the_proxy_is_ignored():
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.RCVTIMEO, WAIT_MS)
    router.bind("tcp://127.0.0.1:0")

    def answer():
        route, _, header = router.recv_multipart()
        request_id, _ = codec.decode(header)
        for frames in ([b"x"], [b"", b""], [b"", b"\x01garbage"], [b"", codec.encode(request_id + 1, PONG)]):
            router.send_multipart([route, *frames])
        router.send_multipart([route, b"", codec.encode(request_id, PONG)])

    async def scenario(client: Client):
        asking = asyncio.create_task(client.request(Pong, Ping(0)))
        await asyncio.to_thread(answer)
        return (await asking)[0]

    try:
        assert with_client(router.getsockopt_string(zmq.LAST_ENDPOINT), scenario) == PONG
    finally:
        context.destroy(0)


def test_a_whole_fragment_goes_and_comes_as_it_is():
    data = bytes(FRAGMENT_BYTES_MAX)

    async def scenario(client: Client):
        return await client.request(FragmentData, PutFragment(0, 5), memoryview(data))

    with running() as it:
        _, payload = with_client(it.endpoint, scenario)
    assert len(payload) == FRAGMENT_BYTES_MAX
