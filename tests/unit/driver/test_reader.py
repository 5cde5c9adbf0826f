import asyncio

import pytest
import xxhash

from fabric.driver.budget import ByteBudget
from fabric.driver.near import NearFiles
from fabric.driver.reader import BAD_CHECKSUM_TRIES, Reader
from fabric.errors import BadChecksum, NoGoodCopy, NotFound, Unavailable
from fabric.settings import FRAGMENT_BYTES_MAX, MIB, Settings
from fabric.wire.messages import (
    FragmentData,
    FragmentRef,
    Fragments,
    GetFragment,
    ListFragments,
    ObjectData,
    ObjectInfo,
)
from tests.unit.driver.fake_client import FakeClient, Gate, noise_of, settle

SIZE = 100
"""Bytes of a fragment here; how large fragments are is not the reader's business."""


def content(fid: int) -> bytes:
    return bytes([fid]) * SIZE


def fragment(fid: int) -> FragmentRef:
    return FragmentRef(1, fid, SIZE, xxhash.xxh3_64_intdigest(content(fid)))


class Object:
    """``count`` fragments in pages of ``page``, the first of which comes with the opening."""

    def __init__(self, count: int, page: int = 100) -> None:
        self.fragments = [fragment(fid) for fid in range(count)]
        self.whole = b"".join(content(fid) for fid in range(count))
        self.page = page
        self.info = ObjectInfo("o", count * SIZE, 1, 77, "", 0, {}, False)

    def serve(self, message, payload):
        if isinstance(message, ListFragments):
            assert message.object_id == 77
            first = message.offset // SIZE // self.page * self.page
            page = self.fragments[first : first + self.page]
            return Fragments(first * SIZE, page, first + self.page < len(self.fragments)), None
        assert isinstance(message, GetFragment)
        data = content(message.fragment.fid)[message.offset : message.offset + message.length]
        checksum = xxhash.xxh3_64_intdigest(data)
        return FragmentData(message.fragment.fid, message.offset, checksum), data

    def reader(
        self,
        client: FakeClient,
        budget: ByteBudget | None = None,
        offset: int = 0,
        length: int | None = None,
        window: int = 6,
    ) -> Reader:
        first_page = offset // SIZE // self.page * self.page
        inside = offset % SIZE
        end = len(self.whole) if length is None else min(len(self.whole), offset + length)
        first = self.whole[offset : min(offset - inside + SIZE, end)]
        opened = ObjectData(
            self.info,
            first_page * SIZE,
            self.fragments[first_page : first_page + self.page],
            True,
            offset,
            0,
        )
        settings = Settings(client_window_bytes=window * FRAGMENT_BYTES_MAX)
        return Reader(
            client, NearFiles(False), settings, budget or ByteBudget(MIB), opened, memoryview(first), end
        )


async def all_of(reader: Reader) -> bytes:
    return b"".join([bytes(piece) async for piece in reader])


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 5))


@pytest.mark.parametrize("count", [1, 2, 7, 30])
@pytest.mark.parametrize("page", [1, 3, 100])
def test_the_bytes_come_whole_and_in_order_over_any_number_of_pages(count, page):
    async def scenario():
        whole = Object(count, page)
        budget = ByteBudget(MIB)
        assert await all_of(whole.reader(FakeClient(whole.serve), budget)) == whole.whole
        assert budget.used == 0

    run(scenario())


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 1), (0, 250), (99, 2), (150, 100), (730, None), (500, 10_000), (999, 1)]
)
def test_a_range_gives_its_bytes_and_reads_no_others(offset, length):
    async def scenario():
        whole = Object(10, page=3)
        client = FakeClient(whole.serve)
        expected = whole.whole[offset:] if length is None else whole.whole[offset : offset + length]
        assert await all_of(whole.reader(client, offset=offset, length=length)) == expected
        read = sum(message.length for message in client.asked if isinstance(message, GetFragment))
        first = min(SIZE - offset % SIZE, len(expected))
        assert read == len(expected) - first

    run(scenario())


def test_an_object_without_bytes_gives_no_pieces():
    async def scenario():
        empty = Object(0)
        client = FakeClient(empty.serve)
        assert [piece async for piece in empty.reader(client)] == []
        assert client.asked == []

    run(scenario())


def test_a_page_is_asked_for_once():
    async def scenario():
        whole = Object(9, page=3)
        client = FakeClient(whole.serve)
        await all_of(whole.reader(client))
        assert [m.offset for m in client.asked if isinstance(m, ListFragments)] == [300, 600]

    run(scenario())


class Slow:
    """Serves a fragment only when the test opens the gate."""

    def __init__(self, whole: Object) -> None:
        self.whole = whole
        self.gate = Gate()
        self.client = FakeClient(self._script)

    async def _answer(self, message):
        await self.gate(message)
        return self.whole.serve(message, None)

    def _script(self, message, payload):
        return self._answer(message) if isinstance(message, GetFragment) else self.whole.serve(message, None)


def test_the_window_grows_while_the_consumer_has_to_wait_up_to_its_maximum():
    async def scenario():
        slow = Slow(Object(30))
        reading = asyncio.create_task(all_of(slow.whole.reader(slow.client, window=3)))
        await settle()
        assert len(slow.gate.waiting) == 2  # the consumer waits: one and one ahead
        while not reading.done():
            slow.gate.open(0, None)
            await settle()
        assert slow.client.most_under_way == 3
        assert await reading == slow.whole.whole

    run(scenario())


def test_a_slow_consumer_never_has_more_than_one_fragment_read_ahead():
    async def scenario():
        whole = Object(10)
        client, budget = FakeClient(whole.serve), ByteBudget(MIB)
        async for _ in whole.reader(client, budget):
            await settle()  # what was read ahead has arrived long before the next piece is wanted
            assert budget.used <= SIZE
        assert client.most_under_way == 1

    run(scenario())


def test_a_used_up_budget_stops_reading_ahead_but_not_reading():
    async def scenario():
        whole, budget = Object(10), ByteBudget(SIZE)
        await budget.acquire(SIZE)  # readers that do not consume hold all of it, for ever
        assert await all_of(whole.reader(FakeClient(whole.serve), budget)) == whole.whole
        assert budget.used == SIZE

    run(scenario())


def test_a_damaged_piece_is_asked_for_again():
    async def scenario():
        whole = Object(3)
        tries: list[int] = []

        def damage_twice(message, payload):
            answer, data = whole.serve(message, payload)
            tries.append(message.fragment.fid)
            return answer, (
                b"?" + data[1:] if tries.count(message.fragment.fid) < BAD_CHECKSUM_TRIES else data
            )

        assert await all_of(whole.reader(FakeClient(damage_twice))) == whole.whole
        assert sorted(tries) == [1] * BAD_CHECKSUM_TRIES + [2] * BAD_CHECKSUM_TRIES

    run(scenario())


@pytest.mark.parametrize("damage", [lambda data: b"?" + data[1:], lambda data: data[:-1], lambda data: b""])
def test_a_piece_that_is_damaged_every_time_is_an_error_and_never_given_out(damage):
    async def scenario():
        whole, budget = Object(3), ByteBudget(MIB)

        def always_damaged(message, payload):
            answer, data = whole.serve(message, payload)
            return answer, damage(data)

        given: list[bytes] = []
        with pytest.raises(BadChecksum):
            async for piece in whole.reader(FakeClient(always_damaged), budget):
                given.append(bytes(piece))
        assert given == [content(0)]
        assert budget.used == 0

    run(scenario())


def test_bytes_that_are_consistent_but_not_the_committed_ones_are_not_given_out():
    async def scenario():
        whole = Object(2)

        def other_bytes(message, payload):
            data = b"o" * SIZE
            return FragmentData(message.fragment.fid, 0, xxhash.xxh3_64_intdigest(data)), data

        with pytest.raises(BadChecksum):
            await all_of(whole.reader(FakeClient(other_bytes)))

    run(scenario())


def test_an_error_of_a_piece_comes_after_the_pieces_before_it():
    async def scenario():
        whole, budget = Object(6), ByteBudget(MIB)

        def third_is_lost(message, payload):
            if isinstance(message, GetFragment) and message.fragment.fid == 3:
                raise NoGoodCopy("a, b, c")
            return whole.serve(message, payload)

        given: list[bytes] = []
        with pytest.raises(NoGoodCopy):
            async for piece in whole.reader(FakeClient(third_is_lost), budget):
                given.append(bytes(piece))
        assert given == [content(0), content(1), content(2)]
        assert budget.used == 0

    run(scenario())


def test_a_page_that_does_not_contain_the_wanted_byte_is_an_error_and_not_asked_for_for_ever():
    async def scenario():
        whole = Object(4, page=2)

        def short(message, payload):
            if isinstance(message, ListFragments):
                return Fragments(0, whole.fragments[:2], False), None
            return whole.serve(message, payload)

        client = FakeClient(short)
        with pytest.raises(NoGoodCopy):
            await all_of(whole.reader(client))
        assert sum(isinstance(message, ListFragments) for message in client.asked) == 1

    run(scenario())


def test_close_gives_up_reads_under_way_and_gives_their_bytes_back():
    async def scenario():
        slow = Slow(Object(10))
        budget = ByteBudget(MIB)
        reader = slow.whole.reader(slow.client, budget)
        pieces = reader.__aiter__()
        await anext(pieces)
        await settle()
        assert budget.used == SIZE
        await reader.close()
        await reader.close()
        await settle()
        assert (budget.used, slow.client.under_way) == (0, 0)
        with pytest.raises(Unavailable):  # and no hole in place of what was given up
            await anext(pieces)

    run(scenario())


def test_close_takes_note_of_errors_that_nobody_will_see():
    async def scenario():
        whole = Object(5)

        def lost(message, payload):
            raise NoGoodCopy("a, b, c")

        reader = whole.reader(FakeClient(lost))
        pieces = reader.__aiter__()
        await anext(pieces)
        await settle()
        await reader.close()
        await pieces.aclose()

    assert noise_of(scenario) == []


def test_a_cancelled_consumer_leaves_nothing_behind():
    async def scenario():
        slow = Slow(Object(10))
        budget = ByteBudget(MIB)
        reading = asyncio.create_task(all_of(slow.whole.reader(slow.client, budget)))
        await settle()
        assert budget.used > 0
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await settle()
        assert (budget.used, slow.client.under_way) == (0, 0)

    run(scenario())


def test_a_fragment_that_was_moved_is_read_where_it_lies_now():
    async def scenario():
        whole = Object(6, page=3)
        client = FakeClient(whole.serve)
        reader = whole.reader(client)
        moved = whole.fragments[4]
        old_page = list(whole.fragments)

        def serve(message, payload):
            if isinstance(message, GetFragment) and message.fragment == moved:
                raise NoGoodCopy("moved")
            if isinstance(message, GetFragment) and message.fragment.group == 2:
                data = content(4)
                return FragmentData(44, 0, xxhash.xxh3_64_intdigest(data)), data
            answer = whole.serve(message, payload)
            if isinstance(message, ListFragments):
                # From the second look on the page has changed.
                whole.fragments[4] = FragmentRef(2, 44, SIZE, moved.checksum)
            return answer

        client._script = serve
        assert await all_of(reader) == whole.whole
        assert old_page[4] == moved

    run(scenario())


@pytest.mark.parametrize("deleted", [False, True])
def test_a_fragment_without_a_good_copy_that_was_not_moved_is_an_error(deleted):
    async def scenario():
        whole = Object(3)

        def serve(message, payload):
            if isinstance(message, GetFragment):
                raise NoGoodCopy("chunk-1, chunk-2")
            if deleted:
                raise NotFound("no fragments")
            return whole.serve(message, payload)

        with pytest.raises(NoGoodCopy, match="chunk-1"):
            await all_of(whole.reader(FakeClient(serve)))

    run(scenario())
