"""A proxy whose peers are played by the test: it sees every effect and gives every answer."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import xxhash

from fabric.errors import FabricError
from fabric.node.effects import Effect, Reply, Send, Sender
from fabric.proxy.role import ProxyRole
from fabric.settings import Settings
from fabric.wire.codec import failed
from fabric.wire.messages import (
    FidLease,
    FragmentRef,
    FragmentStored,
    GetTopology,
    GroupView,
    LeaseFids,
    Message,
    NodeView,
    ObjectInfo,
    Opened,
    Request,
    StoreFragment,
    Topology,
)

MASTER = "tcp://master:7400"
PUBLISHED = Sender("published", 0)
FIRST_FID = 1000
MIB = 1024 * 1024


def checksum(data: bytes) -> int:
    return xxhash.xxh3_64_intdigest(data)


def endpoint(server: str) -> str:
    return f"tcp://{server}:7410"


def topology(
    groups: dict[int, list[str]],
    *,
    sequence: int = 1,
    term: int = 1,
    writable: frozenset[int] | None = None,
    states: dict[str, str] | None = None,
) -> Topology:
    """Every group writable and every server RW, but for what is said."""
    nodes = [
        NodeView(server, endpoint(server), group, (states or {}).get(server, "RW"))
        for group, servers in groups.items()
        for server in servers
    ]
    views = [
        GroupView(group, 7, writable is None or group in writable, 100 * MIB, servers)
        for group, servers in groups.items()
    ]
    return Topology(term, sequence, nodes, views)


ONE_GROUP = {1: ["a", "b", "c"]}
TWO_GROUPS = {1: ["a", "b", "c"], 2: ["d", "e", "f"]}


def opened(path: str, fragments: list[FragmentRef], *, immutable: bool = True, generation: int = 1) -> Opened:
    size = sum(fragment.length for fragment in fragments)
    info = ObjectInfo(path, size, generation, generation, "", 0, {}, immutable)
    return Opened(info, 0, fragments, False)


class World:
    """``sent`` has the requests without an answer, ``replies`` what drivers were told."""

    def __init__(
        self,
        groups: dict[int, list[str]] | Topology | None = None,
        *,
        fids: int | None = 1000,
        settings: Settings | None = None,
        seed: int = 1,
        knows_cluster: bool = True,
    ) -> None:
        self.now = 100.0
        self.settings = settings or Settings(fid_range_count=1000)
        self.role = ProxyRole(name="p", master=MASTER, settings=self.settings, rng=random.Random(seed))
        self.sent: list[Send] = []
        self.replies: list[Reply] = []
        self._next_request_id = 0
        self._in_turn = False
        self.do(self.role.start(self.now))
        view = groups if isinstance(groups, Topology) else topology(groups or ONE_GROUP)
        if knows_cluster:
            self.answer(self.only(GetTopology), view)
        if fids is not None:
            self.answer(self.only(LeaseFids), FidLease(FIRST_FID, fids, 600_000))

    # --- what the proxy does ---

    def do(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self.sent.append(effect)
            elif isinstance(effect, Reply):
                self.replies.append(effect)
            else:
                raise AssertionError(f"a proxy has no use for {effect}")

    def sends(self, kind: type[Request]) -> list[Send]:
        return [send for send in self.sent if type(send.message) is kind]

    def only(self, kind: type[Request]) -> Send:
        (send,) = self.sends(kind)
        return send

    def store_to(self, server: str) -> Send:
        (send,) = [send for send in self.sends(StoreFragment) if send.endpoint == endpoint(server)]
        return send

    def reply_to(self, sender: Sender) -> Reply:
        (reply,) = [reply for reply in self.replies if reply.to == sender]
        return reply

    # --- what the world does ---

    def ask(self, message: Request, payload: bytes | None = None, route: bytes = b"driver") -> Sender:
        self._next_request_id += 1
        sender = Sender(route, self._next_request_id)
        self.do(self.role.receive(message, sender, self.now, payload))
        if not self._in_turn:
            self.do(self.role.on_turn_end(self.now))
        return sender

    @contextlib.contextmanager
    def one_turn(self) -> Iterator[None]:
        """What is asked in here arrives in one turn of the loop; otherwise each request has its own."""
        self._in_turn = True
        yield
        self._in_turn = False
        self.do(self.role.on_turn_end(self.now))

    def answer(self, send: Send, message: Message, payload: bytes | None = None) -> None:
        if send in self.sent:
            self.sent.remove(send)
        self.do(self.role.receive(message, Sender(send.endpoint, send.request_id), self.now, payload))

    def fail(self, send: Send, error: FabricError) -> None:
        self.answer(send, failed(error))

    def confirm(self, send: Send) -> None:
        """The true answer of a chunk server that has stored it."""
        store = send.message
        assert isinstance(store, StoreFragment)
        self.answer(
            send, FragmentStored(store.group, store.epoch, store.fid, len(send.payload), store.checksum)
        )

    def publish(self, message: Message) -> None:
        self.do(self.role.receive(message, PUBLISHED, self.now))

    def wait(self, seconds: float) -> None:
        """Time passes; the shell calls ``on_tick`` at every deadline on the way."""
        end = self.now + seconds
        while (due := self.role.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.do(self.role.on_tick(self.now))
            # Snapshots and leases that the proxy asks for by itself end like the others: unanswered.
        self.now = end

    # --- audit ---

    def assert_idle(self) -> None:
        """Nothing is under way: every counter is back at zero."""
        context = self.role._context
        assert context.inflight_bytes == 0
        assert set(context.pending_bytes.values()) <= {0}
        assert set(context.outstanding.values()) <= {0}
