"""``python -m sim``: run seeds, and show what one of them does."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator

from sim.run import Result, Run, simulate

FAILURES_MAX = 5


def main(arguments: list[str]) -> int:
    """Exit status: 0 when all promises were kept, 1 when one was broken, 2 for bad usage."""
    parser = argparse.ArgumentParser(prog="python -m sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one seed")
    parser.add_argument("--seeds", metavar="A-B", help="run seeds A to B")
    parser.add_argument("--minutes", type=float, help="run seeds from --first on for so many minutes")
    parser.add_argument("--first", type=int, default=1, help="where --minutes begins (default 1)")
    parser.add_argument("--faults", metavar="A,B", help="only these kinds of faults")
    parser.add_argument("--trace", action="store_true", help="show the last events of each run that fails")
    parser.add_argument("--full-trace", metavar="FILE", help="with --seed: write all events to a file")
    options = parser.parse_args(arguments)
    kinds = options.faults.split(",") if options.faults else []
    if options.full_trace and options.seed is not None:
        return _one_whole(options.seed, kinds, options.full_trace)
    seeds = _seeds(options)
    if seeds is None:
        parser.error("say --seed N, --seeds A-B or --minutes M")
    return _many(seeds, kinds, options.trace, options.seed is not None)


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


def _many(seeds: Iterator[int], kinds: list[str], trace: bool, alone: bool) -> int:
    began, total, failures = time.monotonic(), Counter[str](), 0
    for seed in seeds:
        result = simulate(seed, kinds)
        total["runs"] += 1
        for name in ("events", "acknowledged", "refused", "unknown", "reads", "virtual_s"):
            total[name] += int(getattr(result, name))
        if result.violation:
            failures += 1
            _explain(result, trace)
        elif alone:
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


def _one_whole(seed: int, kinds: list[str], path: str) -> int:
    run = Run(seed, kinds, trace_lines=10_000_000)
    violation = run.judged()
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join([*run.world.trace(), violation, ""]))
    print(f"seed {seed}: {violation or 'all promises kept'}; all events are in {path}")
    return 1 if violation else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(traceback.format_exc(limit=1))
