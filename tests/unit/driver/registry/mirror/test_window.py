"""The window of memory between an upstream, a store and readers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fabric.driver.registry.mirror.window import Window


def test_it_reads_from_any_place_that_it_has() -> None:
    window = Window()
    assert window.read(0, 10) is None
    for data in (b"abc", b"de", b"fghi"):
        window.add(data)
    assert window.read(0, 100) == b"abc"
    assert window.read(1, 2) == b"b"
    assert window.read(4, 100) == b"e"
    assert window.read(8, 100) == b"i"
    assert window.read(9, 100) is None
    assert window.read(4, 4) is None
    window.drop_before(4)
    assert (window.start, window.end, window.size) == (3, 9, 6)
    assert window.read(2, 100) is None and window.read(3, 100) == b"de"
    window.drop_before(9)
    assert (window.start, window.end, window.size) == (9, 9, 0)


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=5), st.integers(0, 40)), max_size=30))
def test_it_never_has_a_wrong_byte(steps: list[bytes | int]) -> None:
    window, whole, dropped = Window(), b"", 0
    for step in steps:
        if isinstance(step, bytes):
            window.add(step)
            whole += step
        else:
            dropped = max(dropped, min(step, len(whole)))
            window.drop_before(step)
        assert window.end == len(whole)
        for position in range(len(whole)):
            found = window.read(position, len(whole))
            if found is None:
                assert position < window.start <= dropped
            else:
                assert found and whole[position : position + len(found)] == found
