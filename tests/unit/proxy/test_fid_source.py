from fabric.proxy.fid_source import FidSource


def test_fids_are_handed_out_once_over_several_ranges():
    fids = FidSource(low_water_count=1)
    fids.add(10, 3, lease_s=100.0, asked_at=0.0)
    fids.add(50, 2, lease_s=100.0, asked_at=0.0)
    assert [fids.take(1.0) for _ in range(6)] == [10, 11, 12, 50, 51, None]


def test_a_range_is_used_in_the_first_half_of_its_lease_only():
    fids = FidSource(low_water_count=1)
    fids.add(10, 100, lease_s=20.0, asked_at=5.0)
    assert fids.take(14.9) == 10
    assert fids.take(15.0) is None


def test_an_expired_range_does_not_come_back_and_the_next_one_is_used():
    fids = FidSource(low_water_count=1)
    fids.add(10, 100, lease_s=20.0, asked_at=0.0)
    fids.add(500, 100, lease_s=20.0, asked_at=6.0)
    assert fids.take(10.0) == 500
    assert fids.take(1.0) == 501


def test_it_is_low_when_what_can_still_be_used_is_below_the_mark():
    fids = FidSource(low_water_count=2)
    assert fids.is_low(0.0)
    fids.add(10, 3, lease_s=20.0, asked_at=0.0)
    assert not fids.is_low(0.0)
    assert fids.is_low(10.0)
    fids.take(0.0)
    fids.take(0.0)
    assert fids.is_low(0.0)


def test_a_cleared_stock_gives_nothing():
    fids = FidSource(low_water_count=1)
    fids.add(10, 3, lease_s=100.0, asked_at=0.0)
    fids.clear()
    assert fids.take(0.0) is None
