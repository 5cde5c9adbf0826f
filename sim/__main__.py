"""``python -m sim``: run seeds, show what one of them does, and make a failing one small."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext

import msgspec

from sim.faults.schedule import ALL_KINDS
from sim.mutations import MUTATIONS
from sim.run import Result, simulate_shape
from sim.shape import Shape
from sim.shrink import Shrinker

FAILURES_MAX = 5
SHRINK_S = 120.0
WHOLE_TRACE = 10_000_000


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sim", description=__doc__)
    which = parser.add_argument_group("which runs")
    which.add_argument("--seed", type=int, help="run this one seed")
    which.add_argument("--seeds", metavar="A-B", help="run seeds A to B")
    which.add_argument("--minutes", type=float, help="run seeds from --first on for so many minutes")
    which.add_argument("--first", type=int, default=1, help="where --minutes begins (default 1)")
    size = parser.add_argument_group("less than what the seed means")
    size.add_argument("--faults", metavar="A,B", help="only these kinds of faults")
    size.add_argument("--only-faults", metavar="N,M", help="only the faults with these numbers, or none")
    size.add_argument("--groups", type=int, default=2, help="so many groups (default 2)")
    size.add_argument("--proxies", type=int, default=2, help="so many proxies (default 2)")
    size.add_argument("--clients", type=int, default=4, help="so many clients (default 4)")
    size.add_argument("--operations", type=int, help="so many things clients do before healing")
    size.add_argument("--seconds", type=float, help="so long faults go on")
    size.add_argument("--mutation", default="", help="break the fabric in this way first")
    show = parser.add_argument_group("what is shown")
    show.add_argument("--trace", action="store_true", help="show the last events of each run that fails")
    show.add_argument("--full-trace", metavar="FILE", help="with --seed: write all events to a file")
    show.add_argument("--shrink", action="store_true", help="make each run that fails as small as can be")
    show.add_argument(
        "--shrink-seconds", type=float, default=SHRINK_S, help="search so long (default %(default)s)"
    )
    return parser


def main(arguments: list[str]) -> int:
    """Exit status: 0 when all promises were kept, 1 when one was broken, 2 for bad usage."""
    parser = _parser()
    options = parser.parse_args(arguments)
    kinds = tuple(options.faults.split(",")) if options.faults else ()
    unknown = [kind for kind in kinds if kind not in ALL_KINDS]
    if unknown:
        parser.error(f"no such faults: {', '.join(unknown)}; there are: {', '.join(ALL_KINDS)}")
    mutations = {mutation.name: mutation for mutation in MUTATIONS}
    if options.mutation and options.mutation not in mutations:
        parser.error(f"no such mutation; there are: {', '.join(mutations)}")
    seeds = _seeds(options)
    if seeds is None:
        parser.error("say --seed N, --seeds A-B or --minutes M")
    shape = Shape(
        0,
        kinds,
        _numbers(options.only_faults),
        options.groups,
        options.proxies,
        options.clients,
        options.operations,
        options.seconds,
        options.mutation,
    )
    with mutations[options.mutation].applied() if options.mutation else nullcontext():
        if options.full_trace and options.seed is not None:
            return _one_whole(msgspec.structs.replace(shape, seed=options.seed), options.full_trace)
        return _many(seeds, shape, options)


def _numbers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    return tuple(int(number) for number in text.split(",")) if text != "none" else ()


def _seeds(options: argparse.Namespace) -> Iterator[int] | None:
    if options.seed is not None:
        return iter([options.seed])
    if options.seeds:
        first, _, last = options.seeds.partition("-")
        return iter(range(int(first), int(last or first) + 1))
    if options.minutes:
        return _while_time(options.first, time.monotonic() + 60 * options.minutes)
    return None


def _while_time(seed: int, end: float) -> Iterator[int]:
    while time.monotonic() < end:
        yield seed
        seed += 1


def _many(seeds: Iterator[int], shape: Shape, options: argparse.Namespace) -> int:
    began, total, failures = time.monotonic(), Counter[str](), 0
    for seed in seeds:
        result = simulate_shape(msgspec.structs.replace(shape, seed=seed))
        total["runs"] += 1
        for name in ("events", "acknowledged", "refused", "unknown", "reads", "virtual_s"):
            total[name] += int(getattr(result, name))
        if result.violation:
            failures += 1
            _explain(result, options.trace and not options.shrink)
            if options.shrink:
                _shrink(result, options.shrink_seconds)
        elif options.seed is not None:
            print(f"seed {seed}: all promises kept; faults: {', '.join(result.faults)}")
        if failures >= FAILURES_MAX:
            print(f"stopped after {failures} failures")
            break
    counts = ", ".join(f"{count} {name.replace('_s', ' s')}" for name, count in total.items())
    print(f"{counts}, {failures} failed, in {time.monotonic() - began:.1f} s")
    return 1 if failures else 0


def _explain(result: Result, trace: bool) -> None:
    if trace:
        print("\n".join(result.trace))
    print(f"seed {result.seed}: {result.violation}")
    print(f"  faults: {', '.join(result.faults)}")
    print(f"  replay: {result.replay}", flush=True)


def _shrink(failing: Result, seconds: float) -> None:
    end = time.monotonic() + seconds
    shrinker = Shrinker(failing, lambda: time.monotonic() >= end)
    small = shrinker.shrink()
    print("\n".join(small.trace))
    print(f"shrunk in {shrinker.tries} tries, from {_size(failing)} to {_size(small)}")
    _explain(small, trace=False)


def _size(result: Result) -> str:
    return f"{result.events} events, {len(result.faults_done)} faults, {result.begun} operations"


def _one_whole(shape: Shape, path: str) -> int:
    result = simulate_shape(shape, WHOLE_TRACE)
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join([*result.trace, result.violation, ""]))
    print(f"seed {shape.seed}: {result.violation or 'all promises kept'}; all events are in {path}")
    return 1 if result.violation else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(traceback.format_exc(limit=1))
