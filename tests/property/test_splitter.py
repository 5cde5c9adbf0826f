import itertools

from hypothesis import given
from hypothesis import strategies as st

from fabric.driver.splitter import Splitter


@st.composite
def cuttings(draw):
    """Some bytes, and the same bytes cut in any way, as any kind of buffer."""
    data = draw(st.binary(max_size=200))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=20)))
    kinds = st.sampled_from([bytes, bytearray, memoryview])
    edges = [0, *cuts, len(data)]
    pieces = [draw(kinds)(data[start:end]) for start, end in itertools.pairwise(edges)]
    return data, pieces


def fragments_of(splitter, pieces):
    whole = [b"".join(parts) for piece in pieces for parts in splitter.feed(piece)]
    rest = splitter.rest()
    return whole, None if rest is None else b"".join(rest)


@given(cuttings(), st.integers(1, 50))
def test_any_cutting_of_a_stream_gives_the_same_fragments(cutting, fragment_bytes):
    data, pieces = cutting
    whole, rest = fragments_of(Splitter(fragment_bytes), pieces)
    expected = [data[start : start + fragment_bytes] for start in range(0, len(data), fragment_bytes)]
    assert whole + ([] if rest is None else [rest]) == expected
    assert all(len(fragment) == fragment_bytes for fragment in whole)
    assert rest is None or 0 < len(rest) < fragment_bytes


@given(cuttings(), st.integers(1, 50))
def test_it_never_holds_a_whole_fragment_and_nothing_after_the_rest(cutting, fragment_bytes):
    _, pieces = cutting
    splitter = Splitter(fragment_bytes)
    for piece in pieces:
        for _ in splitter.feed(piece):
            pass
        assert splitter.held_bytes < fragment_bytes
    splitter.rest()
    assert splitter.held_bytes == 0
    assert splitter.rest() is None


def test_nothing_is_copied():
    data = bytearray(b"abcdefgh")
    splitter = Splitter(5)
    fragments = [*splitter.feed(data), splitter.rest()]
    data[0:1], data[7:8] = b"X", b"Y"
    assert [[bytes(part) for part in parts] for parts in fragments] == [[b"Xbcde"], [b"fgY"]]
