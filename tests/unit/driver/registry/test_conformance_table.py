"""The table of the specification's clauses: every test that it names is there, and nothing is left open."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[4]
TABLE = (ROOT / "docs/conformance.md").read_text()
STATUSES = {"met", "main", "not used"}

CODES = {
    "BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED",
    "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS",
}  # fmt: skip
"""The specification's table, section "Error Codes"."""

LEGACY_CODES = {"TAG_INVALID"}


class Row(NamedTuple):
    clause: str
    status: str
    shown_by: str

    @property
    def tests(self) -> list[tuple[str, str]]:
        return re.findall(r"`(\w+)::(\w+)`", self.shown_by)


ROWS = [
    Row(*(cell.strip() for cell in line.strip("|").split("|")))
    for line in TABLE.partition("\n## The official suite")[0].splitlines()
    if line.startswith("|") and line.count("|") == 4 and "---" not in line and "| clause |" not in line
]


def functions_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_table_is_read() -> None:
    assert len(ROWS) > 60
    assert sum(row.clause.startswith("MUST") for row in ROWS) > 35


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.clause)
def test_a_clause_is_met_and_each_test_that_shows_it_is_there(row: Row) -> None:
    assert row.status in STATUSES
    if row.status == "not used":
        assert not row.clause.startswith("MUST")
    else:
        assert row.tests, "a clause that is met is shown by a test"
    for file, name in row.tests:
        paths = list((ROOT / "tests").rglob(f"test_{file}.py"))
        assert len(paths) == 1, f"test_{file}.py is one file"
        assert name in functions_in(paths[0])


def test_codes_of_refusals_are_those_of_the_specification() -> None:
    """Every ``RegistryError(4xx, code, …)`` and ``ManyErrors(4xx, code, …)`` of the registry's sources."""
    found = set()
    for path in (ROOT / "fabric/driver/registry").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or len(node.args) < 2:
                continue
            status, code = node.args[:2]
            if (
                node.func.id in ("RegistryError", "ManyErrors")
                and isinstance(status, ast.Constant)
                and isinstance(code, ast.Constant)
                and 400 <= status.value < 500
            ):
                found.add(code.value)
    assert found > {"BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"}, "the search finds them"
    assert found <= CODES | LEGACY_CODES
