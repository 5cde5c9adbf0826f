"""``docs/wire.md`` says what the code does: its tables are compared, its client is run."""

from __future__ import annotations

import contextlib
import io
import re
import threading
import typing
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from fabric import errors, settings
from fabric.wire import codec
from fabric.wire import messages as m

DOCUMENT = (Path(__file__).parents[3] / "docs/wire.md").read_text()


# --- the tables that the code implies ---------------------------------------------------------------


def _fields(kind: type[msgspec.Struct]) -> str:
    return ", ".join(
        field.name + ("?" if _has_default(field) else "") for field in msgspec.structs.fields(kind)
    )


def _has_default(field: msgspec.structs.FieldInfo) -> bool:
    return field.default is not msgspec.NODEFAULT or field.default_factory is not msgspec.NODEFAULT


def kind_rows() -> list[str]:
    """``| kind | name | fields | payload | answered by |``"""
    rows = []
    for number, kind in sorted(codec.KINDS.items()):
        payload = "payload" if kind in m.WITH_PAYLOAD else ""
        reply = m.REPLIES.get(kind)  # type: ignore[call-overload]
        answer = f"`{reply.__name__}`" if reply is not None else ""
        rows.append(f"| {number} | `{kind.__name__}` | {_fields(kind)} | {payload} | {answer} |")
    return rows


def operation_rows() -> list[str]:
    """``| tag | name | fields |``"""
    return [
        f"| {kind.__struct_config__.tag} | `{kind.__name__}` | {_fields(kind)} |"
        for kind in typing.get_args(m.AnyOperation)
    ]


def part_rows() -> list[str]:
    """``| name | fields |``"""
    return [f"| `{part.__name__}` | {_fields(part)} |" for part in m.Part.__subclasses__()]


def error_rows() -> list[str]:
    """``| code | retry | meaning |``"""
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.FabricError) and kind is not errors.FabricError
    ]
    rows = []
    for kind in kinds:
        meaning = " ".join((kind.__doc__ or "").split()).replace("``", "`")
        rows.append(f"| `{kind.code}` | {'yes' if kind.retryable else 'no'} | {meaning} |")
    return rows


def _rows_under(heading: str) -> list[str]:
    section = DOCUMENT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return rows[2:]


@pytest.mark.parametrize(
    ("heading", "rows"),
    [
        ("Kinds", kind_rows()),
        ("Operations of a commit", operation_rows()),
        ("Values inside messages", part_rows()),
        ("Errors", error_rows()),
    ],
)
def test_a_table_is_that_of_the_code(heading: str, rows: list[str]) -> None:
    assert _rows_under(heading) == rows


def test_the_limits_are_those_of_the_code() -> None:
    stated = dict(re.findall(r"^\| `([A-Z_]+)` \| ([\d,]+) \|", DOCUMENT, re.MULTILINE))
    names = [
        name for name, value in vars(settings).items() if name.endswith("_MAX") and isinstance(value, int)
    ]

    assert {name: int(value.replace(",", "")) for name, value in stated.items()} == {
        name: getattr(settings, name) for name in [*names, "BUCKETS"]
    }


# --- the foreign client -----------------------------------------------------------------------------


def foreign_client() -> str:
    """The one block of Python in the document."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    return typing.cast(str, block)


INFO = m.ObjectInfo("hello", 5, 1, 1, "", 0, {}, False)
ANSWERS: dict[type[m.Message], tuple[m.Message, bytes | None]] = {
    m.Ping: (m.Pong("proxy", "p", "1"), None),
    m.ListObjects: (m.Listing([INFO], [], ""), None),
    m.GetObject: (m.ObjectData(INFO, 0, [], False, 0, 0), b"world"),
}


@pytest.fixture
def proxy() -> Iterator[str]:
    """A ROUTER that decodes as the roles do and answers from the table."""
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            if not socket.poll(20):
                continue
            route, empty, header, *payloads = socket.recv_multipart()
            request_id, message = codec.decode(header)
            codec.check_payload(message, payloads)
            answer, payload = ANSWERS[type(message)]
            frames = [route, empty, codec.encode(request_id, answer)]
            socket.send_multipart(frames if payload is None else [*frames, payload])

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"tcp://127.0.0.1:{port}"
    stop.set()
    thread.join()
    context.destroy(0)


def run_foreign_client(endpoint: str) -> str:
    """What it prints when its proxy is at ``endpoint``."""
    code = foreign_client()
    assert code.count("tcp://127.0.0.1:7420") == 1
    output, names = io.StringIO(), dict[str, typing.Any]()
    with contextlib.redirect_stdout(output):
        exec(code.replace("tcp://127.0.0.1:7420", endpoint), names)
    names["socket"].close(0)
    return output.getvalue()


def test_the_foreign_client_in_the_document_works(proxy: str) -> None:
    printed = run_foreign_client(proxy)

    assert "[3, 'proxy', 'p', '1']" in printed
    assert "'hello', 5" in printed
    assert "b'world'" in printed


def test_the_foreign_client_is_ten_lines_and_knows_nothing_of_us() -> None:
    lines = [line for line in foreign_client().splitlines() if line.strip()]
    assert len(lines) <= 11
    assert "fabric" not in foreign_client()
