"""The loop over real loopback sockets: what peers do wrong, slowly, or not at all."""

from __future__ import annotations

import random
import signal
import socket
import struct
import threading
import time

import msgpack
import pytest
import zmq

from fabric.errors import BadMessage
from fabric.node.effects import Reply, Send
from fabric.node.sockets import KERNEL_BUFFER_BYTES, make_context, make_socket
from fabric.node.zmq_loop import REFUSALS_HELD_BYTES_MAX, BindFailed, ZmqLoop
from fabric.settings import FRAGMENT_BYTES_MAX, HEADER_BYTES_MAX, KIB, MIB
from fabric.wire import codec
from fabric.wire.messages import (
    Commit,
    Failed,
    FragmentData,
    GroupView,
    NodeView,
    Ping,
    Pong,
    PutFragment,
    PutObject,
    PutOperation,
    ReadFragment,
    ReportFailure,
    Stat,
    Topology,
)
from tests.unit.node.echo import WAIT_MS, Echo, RawPeer, running

PING = codec.encode(7, Ping(1000))


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def forward(endpoint: str) -> ReportFailure:
    """Makes the echo role ask ``endpoint`` and answer with what it hears."""
    return ReportFailure(1000, "p", "s", 1, 1, "X", endpoint)


# --- good requests --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ], ids=["DEALER", "REQ"])
def test_a_dealer_and_a_req_peer_are_answered_alike(kind):
    with running() as it, RawPeer(it.endpoint, kind) as peer:
        for request_id in (1, 2**64 - 1):
            header = codec.encode(request_id, Ping(1000))
            peer.socket.send_multipart([header] if kind == zmq.REQ else [b"", header])
            *_, answer = peer.socket.recv_multipart()
            assert codec.decode(answer) == (request_id, Pong("echo", "e", "1"))


def test_a_correlating_req_peer_gets_over_a_request_that_it_gave_up():
    with running() as it, RawPeer(it.endpoint, zmq.REQ) as peer:
        peer.socket.setsockopt(zmq.REQ_CORRELATE, 1)
        peer.socket.setsockopt(zmq.REQ_RELAXED, 1)
        peer.socket.send(codec.encode(1, Ping(1000)))
        peer.socket.send(codec.encode(2, Ping(1000)))
        *_, answer = peer.socket.recv_multipart()
        assert codec.decode(answer) == (2, Pong("echo", "e", "1"))
        peer.socket.send_multipart([b"\x01 not a message"])
        *_, refusal = peer.socket.recv_multipart()
        assert isinstance(codec.decode(refusal)[1], Failed)


@pytest.mark.parametrize("size", [0, 1, 64 * KIB - 1, 64 * KIB, FRAGMENT_BYTES_MAX])
def test_a_payload_comes_back_as_it_was(size):
    data = random.Random(size).randbytes(size)
    with running() as it, RawPeer(it.endpoint) as peer:
        peer.send(1, PutFragment(1000, 5), data)
        assert peer.receive() == (1, FragmentData(0, 0, 5), [data])


def test_many_requests_in_flight_are_all_answered_under_their_ids():
    with running() as it, RawPeer(it.endpoint, SNDHWM=0, RCVHWM=0) as peer:
        for request_id in range(1, 1001):
            peer.send(request_id, Ping(1000))
        assert {peer.receive()[0] for _ in range(1000)} == set(range(1, 1001))


# --- malformed messages ---------------------------------------------------------------------------

MALFORMED = {
    "no frames behind the route": ([b"x"], "BAD_MESSAGE", 0),
    "only the delimiter": ([b""], "BAD_MESSAGE", 0),
    "no delimiter": ([PING, b""], "BAD_MESSAGE", 0),
    "an empty header": ([b"", b""], "BAD_MESSAGE", 0),
    "a header cut in its id": ([b"", PING[:8]], "BAD_MESSAGE", 0),
    "a header without a body": ([b"", PING[:9]], "BAD_MESSAGE", 7),
    "another version": ([b"", b"\x02" + PING[1:]], "BAD_VERSION", 7),
    "a body that is not MessagePack": ([b"", PING[:9] + b"\xc1"], "BAD_MESSAGE", 7),
    "a body that is a map": ([b"", PING[:9] + msgpack.packb({2: 5})], "BAD_MESSAGE", 7),
    "a kind that is text": ([b"", PING[:9] + msgpack.packb(["Ping", 5])], "BAD_MESSAGE", 7),
    "an unknown kind": ([b"", PING[:9] + msgpack.packb([12345, 5])], "UNKNOWN_KIND", 7),
    "a field of a wrong type": ([b"", PING[:9] + msgpack.packb([2, "soon"])], "BAD_MESSAGE", 7),
    "a negative number": ([b"", PING[:9] + msgpack.packb([2, -1])], "BAD_MESSAGE", 7),
    "a missing field": ([b"", PING[:9] + msgpack.packb([2])], "BAD_MESSAGE", 7),
    "deep nesting": ([b"", PING[:9] + b"\x91" * 100_000], "BAD_MESSAGE", 7),
    "a length that lies": ([b"", PING[:9] + b"\xdd\xff\xff\xff\xff"], "BAD_MESSAGE", 7),
    "a map as a key": ([b"", PING[:9] + b"\x92\x02\x81\x80\x01"], "BAD_MESSAGE", 7),
    "a payload where none belongs": ([b"", PING, b"data"], "BAD_MESSAGE", 7),
    "no payload where one belongs": ([b"", codec.encode(7, PutFragment(5, 1))], "BAD_MESSAGE", 7),
    "two payloads": ([b"", codec.encode(7, PutFragment(5, 1)), b"a", b"b"], "TOO_LARGE", 7),
    "too many frames": ([b"", PING, *[b"x"] * 5000], "TOO_LARGE", 7),
    "a payload beyond a fragment": (
        [b"", codec.encode(7, PutFragment(5, 1)), bytes(FRAGMENT_BYTES_MAX + 1)],
        "TOO_LARGE",
        7,
    ),
    "a header beyond its limit": ([b"", PING + bytes(HEADER_BYTES_MAX)], "TOO_LARGE", 7),
}


@pytest.fixture(scope="module")
def echo_loop():
    with running() as it:
        yield it


@pytest.mark.parametrize(("message", "code", "request_id"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_message_is_refused_and_the_next_good_one_served(echo_loop, message, code, request_id):
    with RawPeer(echo_loop.endpoint) as peer:
        peer.socket.send_multipart(message)
        answered_id, answer, _ = peer.receive()
        assert isinstance(answer, Failed)
        assert (answered_id, answer.code, answer.retryable) == (request_id, code, False)
        peer.assert_served()


def test_a_frame_beyond_what_zeromq_takes_ends_its_connection_and_nothing_else(echo_loop):
    with RawPeer(echo_loop.endpoint) as good, RawPeer(echo_loop.endpoint) as peer:
        peer.send(1, PutFragment(1000, 1), bytes(FRAGMENT_BYTES_MAX + 64 * KIB + 1))
        good.assert_served()
        peer.assert_served(2)  # it has reconnected by itself


def test_ten_thousand_mutated_messages_leave_it_alive(echo_loop):
    rng = random.Random(27)
    whole = [
        [b"", codec.encode(1, message), *payload]
        for message, *payload in (
            (Ping(5),),
            (Stat(5, "a/b"),),
            (PutFragment(5, 9), b"payload"),
            (PutObject(5, b"o" * 16, "p", 1, "d", {"k": "v"}), b"payload"),
            (Commit(5, b"o" * 16, [PutOperation("p", [], "d", {"k": "v"})]),),
            (Topology(1, 1, [NodeView("a", "e", 1, "RW")], [GroupView(1, 1, True, 5, ["a"])]),),
        )
    ]
    with RawPeer(echo_loop.endpoint, SNDHWM=0, RCVHWM=0) as peer:
        for number in range(10_000):
            peer.socket.send_multipart(mutated(rng, rng.choice(whole)))
            if number % 1000 == 999:
                # Some came through whole; their answers come first.
                peer.send(5_000_000 + number, Ping(1000))
                while peer.receive()[0] != 5_000_000 + number:
                    pass


def mutated(rng: random.Random, frames: list[bytes]) -> list[bytes]:
    frames = [bytearray(frame) for frame in frames]
    for _ in range(rng.randrange(1, 4)):
        frame = rng.choice(frames)
        position = rng.randrange(len(frame) + 1)
        match rng.randrange(6):
            case 0:
                frame[position:position] = rng.randbytes(rng.randrange(1, 9))
            case 1:
                del frame[position : position + rng.randrange(1, 9)]
            case 2 if position < len(frame):
                frame[position] = rng.randrange(256)
            case 3:
                frames.append(bytearray(rng.randbytes(rng.randrange(20))))
            case 4 if len(frames) > 1:
                frames.remove(frame)
            case 5:
                frame[position:position] = bytes([rng.choice([0x80, 0x91, 0xC7, 0xD7, 0xDD, 0xDF, 0xDB])])
    return [bytes(frame) for frame in frames]


def test_other_protocols_at_its_port_do_no_harm(echo_loop):
    host, port = echo_loop.endpoint.removeprefix("tcp://").split(":")
    rng = random.Random(3)
    for hello in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff" + bytes(63), rng.randbytes(5000), b""):
        with socket.create_connection((host, int(port)), WAIT_MS / 1000) as stranger:
            stranger.sendall(hello)
    with RawPeer(echo_loop.endpoint) as peer:
        peer.assert_served()


# --- peers that it asks ---------------------------------------------------------------------------


def test_a_peer_answers_through_it():
    with running() as far, running() as near, RawPeer(near.endpoint) as driver:
        assert driver.ask(1, forward(far.endpoint)) == Pong("echo", "e", "1")


def test_a_peer_that_is_down_fails_at_once():
    with running() as it, RawPeer(it.endpoint) as driver:
        started = time.monotonic()
        nowhere = f"tcp://127.0.0.1:{free_port()}"
        for request_id in (1, 2):
            answer = driver.ask(request_id, forward(nowhere))
            assert isinstance(answer, Failed)
            assert (answer.code, answer.retryable) == ("UNAVAILABLE", True)
            assert nowhere in answer.message
        assert time.monotonic() - started < 1.0


@pytest.mark.parametrize(
    "endpoint", ["", "nonsense", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "udp://x:1"]
)
def test_an_address_that_means_nothing_is_a_peer_that_is_down(endpoint):
    with running() as it, RawPeer(it.endpoint) as driver:
        answer = driver.ask(1, forward(endpoint))
        assert isinstance(answer, Failed)
        assert answer.code == "UNAVAILABLE"
        driver.assert_served()


def silent_peer() -> tuple[zmq.Context, zmq.Socket]:
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.RCVTIMEO, WAIT_MS)
    router.bind("tcp://127.0.0.1:0")
    return context, router


def test_requests_open_at_a_peer_that_dies_fail_at_once():
    context, router = silent_peer()
    with running() as it, RawPeer(it.endpoint) as driver:
        for request_id in (1, 2, 3):
            driver.send(request_id, forward(router.getsockopt_string(zmq.LAST_ENDPOINT)))
        for _ in range(3):
            router.recv_multipart()
        context.destroy(0)
        answers = [driver.receive() for _ in range(3)]
        assert {request_id for request_id, _, _ in answers} == {1, 2, 3}
        assert {answer.code for _, answer, _ in answers} == {"UNAVAILABLE"}


def test_a_peer_that_comes_back_is_used_again():
    with running() as near, RawPeer(near.endpoint) as driver:
        with running() as far:
            endpoint = far.endpoint
            assert isinstance(driver.ask(1, forward(endpoint)), Pong)
        with running(listen=endpoint):
            request_id = 2
            while isinstance(driver.ask(request_id, forward(endpoint)), Failed):
                request_id += 1
                assert request_id < 2000
                time.sleep(0.005)  # its answers "unavailable" at once until it has reconnected


def test_a_peer_that_is_not_of_the_fabric_fails_too():
    with socket.create_server(("127.0.0.1", 0)) as listener, running() as it, RawPeer(it.endpoint) as driver:
        driver.send(1, forward(f"tcp://127.0.0.1:{listener.getsockname()[1]}"))
        stranger, _ = listener.accept()
        with stranger:
            stranger.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" + bytes(100))
        assert driver.receive()[1].code == "UNAVAILABLE"


def test_a_request_from_a_peer_that_should_answer_is_ignored():
    context, router = silent_peer()
    with running() as it, RawPeer(it.endpoint) as driver:
        driver.send(1, forward(router.getsockopt_string(zmq.LAST_ENDPOINT)))
        route, _, header = router.recv_multipart()
        request_id, _ = codec.decode(header)
        router.send_multipart([route, b"", b"garbage"])
        router.send_multipart([route, b"", codec.encode(request_id, Ping(5))])
        router.send_multipart([route, b"", codec.encode(request_id, Pong("far", "f", ""))])
        assert driver.receive()[1] == Pong("far", "f", "")
        assert it.role.received == [
            forward(router.getsockopt_string(zmq.LAST_ENDPOINT)),
            Pong("far", "f", ""),
        ]
    context.destroy(0)


def test_what_a_role_does_about_a_failed_send_comes_after_the_effects_beside_it():
    """An abort must not overtake the store that it aborts."""
    nowhere = f"tcp://127.0.0.1:{free_port()}"
    with running() as it, RawPeer(it.endpoint) as driver:
        assert isinstance(driver.ask(1, forward(nowhere)), Failed)  # now it is known to be down

        def on_request(message, sender):
            it.role.asked[50] = sender
            return [Send(nowhere, 50, Ping(5)), Reply(sender, Pong("echo", "beside it", ""))]

        it.role.on_request = on_request
        driver.send(2, Ping(5))
        assert driver.receive()[1] == Pong("echo", "beside it", "")
        assert isinstance(driver.receive()[1], Failed)


# --- slow readers ---------------------------------------------------------------------------------


def ask_until(condition, endpoint: str) -> None:
    """The loop answers pings until the condition holds; each answer is a turn that it has made."""
    with RawPeer(endpoint) as quick:
        for request_id in range(1, 20_000):
            assert isinstance(quick.ask(request_id, Ping(1000)), Pong)
            if condition():
                return
    raise AssertionError("never came true")


def test_a_peer_that_does_not_read_its_replies_does_not_delay_another():
    with running() as it, RawPeer(it.endpoint, RCVHWM=1, RCVBUF=64 * KIB) as slow:
        for request_id in range(1, 101):
            slow.send(request_id, ReadFragment(1000, 1, 1, 0, MIB))
        ask_until(lambda: it.loop._held_bytes > 0, it.endpoint)
        assert [slow.receive()[0] for _ in range(100)] == list(range(1, 101))


def test_replies_held_for_a_peer_that_went_away_are_let_go():
    with running() as it:
        with RawPeer(it.endpoint, RCVHWM=1, RCVBUF=64 * KIB) as slow:
            for request_id in range(1, 101):
                slow.send(request_id, ReadFragment(1000, 1, 1, 0, MIB))
            ask_until(lambda: it.loop._held_bytes > 0, it.endpoint)
        ask_until(lambda: not it.loop._held, it.endpoint)
        assert it.loop._held_bytes == 0


def test_beyond_its_limit_a_slow_peer_is_told_to_ask_again(monkeypatch):
    monkeypatch.setattr("fabric.node.zmq_loop.REPLIES_HELD_BYTES_MAX", 8 * MIB)
    with running() as it, RawPeer(it.endpoint, RCVHWM=1, RCVBUF=64 * KIB) as slow:
        for request_id in range(1, 151):
            slow.send(request_id, ReadFragment(1000, 1, 1, 0, MIB))
        ask_until(lambda: len(it.role.received) >= 150, it.endpoint)
        assert 0 < it.loop._held_bytes <= 8 * MIB + REFUSALS_HELD_BYTES_MAX
        answers = [slow.receive() for _ in range(150)]
        assert [number for number, _, _ in answers] == list(range(1, 151)), "each has an answer"
        assert {answer.code for _, answer, _ in answers if isinstance(answer, Failed)} == {"BUSY"}
        assert any(payload == [b"x" * MIB] for _, _, payload in answers)


def test_what_is_beyond_that_too_is_dropped_and_life_goes_on(monkeypatch, caplog):
    monkeypatch.setattr("fabric.node.zmq_loop.REPLIES_HELD_BYTES_MAX", 8 * MIB)
    monkeypatch.setattr("fabric.node.zmq_loop.REFUSALS_HELD_BYTES_MAX", 0)
    with running() as it, RawPeer(it.endpoint, RCVHWM=1, RCVBUF=64 * KIB) as slow:
        for request_id in range(1, 151):
            slow.send(request_id, ReadFragment(1000, 1, 1, 0, MIB - 100))
        for request_id in range(151, 3000):
            slow.send(request_id, ReadFragment(1000, 1, 1, 0, 0))
        ask_until(lambda: "one was dropped" in caplog.text, it.endpoint)
        assert 0 < it.loop._held_bytes <= 8 * MIB


# --- lanes, time, publications, ends --------------------------------------------------------------


def test_work_is_done_on_its_lane_and_comes_back():
    names: list[str] = []

    def work(job: object) -> object:
        names.append(threading.current_thread().name)
        return f"did {job}"

    with running(lane=work) as it, RawPeer(it.endpoint) as peer:
        for request_id in range(1, 4):
            assert peer.ask(request_id, Stat(1000, f"job {request_id}")).name == f"did job {request_id}"
    assert names == ["lane-0"] * 3


def test_work_that_takes_long_stops_nobody_else():
    go_on = threading.Event()
    with running(lane=lambda job: go_on.wait(WAIT_MS / 1000)) as it, RawPeer(it.endpoint) as peer:
        peer.send(1, Stat(1000, "slow"))
        peer.assert_served()
        go_on.set()
        assert peer.receive()[:2] == (1, Pong("echo", "True", ""))


def test_a_lane_that_crashes_ends_the_loop_with_status_70(caplog):
    def crash(job: object) -> object:
        raise ZeroDivisionError("a bug in the worker")

    with running(lane=crash) as it, RawPeer(it.endpoint) as peer:
        peer.send(1, Stat(1000, "job"))
        it.ends_with(70)
    assert "a bug in the worker" in caplog.text


def test_an_exit_effect_ends_the_loop_with_its_status(caplog):
    with running() as it, RawPeer(it.endpoint) as peer:
        peer.send(1, Stat(1000, "exit"))
        peer.send(2, Ping(1000))
        it.ends_with(3)
    assert "enough" in caplog.text
    assert it.role.received == [Stat(1000, "exit")]


def test_time_never_goes_back_and_ticks_come_when_they_are_due():
    with running() as it, RawPeer(it.endpoint) as peer:
        it.role.deadline = time.monotonic() + 0.05
        peer.assert_served()  # wakes the loop, which sees the new deadline
        due = it.role.deadline
        while it.role.deadline is not None:
            peer.assert_served()
        assert due is None or it.role.times[-1] >= due or it.role.times[-2] >= due
        driver_asks = [forward(f"tcp://127.0.0.1:{free_port()}") for _ in range(5)]
        for request_id, message in enumerate(driver_asks):
            peer.ask(request_id, message)
        assert it.role.times == sorted(it.role.times)


def test_publications_reach_subscribers():
    port = free_port()
    with (
        running(subscribe=[f"tcp://127.0.0.1:{port}"]) as near,
        running(publish=f"tcp://127.0.0.1:{port}") as far,
        RawPeer(far.endpoint) as peer,
    ):
        request_id = 0
        while not near.role.published:  # a subscription takes a moment to arrive
            request_id += 1
            peer.ask(request_id, Stat(1000, "publish"))
        assert near.role.published[0].paths == ["a"]


def test_stop_ends_it_with_status_0_while_it_waits():
    with running() as it, RawPeer(it.endpoint) as peer:
        peer.assert_served()
        it.loop.stop()
        it.ends_with(0)
        it.loop.stop()  # once more, after its end


def test_a_reply_under_way_still_leaves_after_stop():
    with running() as it, RawPeer(it.endpoint) as peer:

        def on_request(message, sender):
            it.loop.stop()

        it.role.on_request = on_request
        assert isinstance(peer.ask(1, Ping(1000)), Pong)


@pytest.mark.parametrize("attempt", range(20))
def test_in_the_main_thread_sigterm_ends_it_and_the_handlers_are_put_back(attempt):
    """Repeated, because a signal that comes just before the poll once went unnoticed."""
    previous = signal.getsignal(signal.SIGTERM)
    loop = ZmqLoop(Echo(), listen="tcp://127.0.0.1:0")
    main = threading.main_thread().ident
    assert main is not None

    def kill_once_it_is_served() -> None:
        with RawPeer(loop.endpoint) as peer:
            peer.assert_served()
        signal.pthread_kill(main, signal.SIGTERM)

    killer = threading.Thread(target=kill_once_it_is_served)
    killer.start()
    assert loop.run() == 0
    killer.join()
    assert signal.getsignal(signal.SIGTERM) is previous


def test_a_port_in_use_is_bind_failed():
    with running() as it:
        with pytest.raises(BindFailed, match=r"cannot listen on .*Is another process using the port"):
            ZmqLoop(Echo(), listen=it.endpoint)
        with pytest.raises(BindFailed):
            ZmqLoop(Echo(), listen="tcp://127.0.0.1:0", publish=it.endpoint)


def test_an_endpoint_that_means_nothing_is_bind_failed():
    with pytest.raises(BindFailed):
        ZmqLoop(Echo(), listen="nonsense")


def test_the_mutations_of_this_file_are_malformed_mostly():
    """Guards the fuzz test above against mutating nothing."""
    rng = random.Random(1)
    bad = 0
    for _ in range(500):
        frames = mutated(rng, [b"", codec.encode(1, Stat(5, "a/b"))])
        try:
            codec.decode(frames[1] if len(frames) > 1 else b"")
        except (BadMessage, struct.error):
            bad += 1
    assert 200 < bad < 500


def test_who_asks_and_who_is_asked_do_not_share_a_thread_of_zeromq():
    """A small question would wait behind fragments that go out to three replicas."""
    role, alone = make_context(), zmq.Context()
    asked, asking = make_socket(role, zmq.ROUTER), make_socket(role, zmq.DEALER)
    driver = make_socket(alone, zmq.DEALER)
    try:
        threads = [one.getsockopt(zmq.AFFINITY) for one in (asked, asking)]
        assert threads[0] & threads[1] == 0
        assert threads[0] | threads[1] < 1 << role.get(zmq.IO_THREADS)
        assert driver.getsockopt(zmq.AFFINITY) == 0
        for one in (asked, asking, driver):
            assert one.getsockopt(zmq.SNDBUF) == one.getsockopt(zmq.RCVBUF) == KERNEL_BUFFER_BYTES
    finally:
        role.destroy(0)
        alone.destroy(0)
