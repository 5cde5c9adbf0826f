"""The set-up of a role's process: freed fragments stay mapped, wake-ups do not preempt."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import ctypes, resource
from fabric.node.process import keep_fragments_mapped
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
if {tuned}:
    assert keep_fragments_mapped()
def window():
    blocks = [libc.malloc(4 << 20) for _ in range(6)]
    for block in blocks:
        libc.memset(block, 1, 4 << 20)
    for block in blocks:
        libc.free(block)
window()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    window()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*, tuned: bool) -> int:
    command = [sys.executable, "-c", SCRIPT.format(tuned=tuned)]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def test_freed_fragments_are_used_again_without_page_faults() -> None:
    # 60 fragments of 1,024 pages each.
    assert page_faults(tuned=True) < 1_000 < page_faults(tuned=False)


def test_a_role_is_scheduled_in_batches_with_all_its_threads() -> None:
    script = (
        "import os, threading; from fabric.node.process import set_up_process; set_up_process();"
        "found = []; thread = threading.Thread(target=lambda: found.append(os.sched_getscheduler(0)));"
        "thread.start(); thread.join(); print(found[0] == os.sched_getscheduler(0) == os.SCHED_BATCH)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert result.stdout.strip() == "True"
