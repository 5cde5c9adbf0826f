"""Bars on a terminal, and nothing elsewhere."""

from __future__ import annotations

import io

import pytest

from fabric.cli.output import print_json_line, share_bar


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, columns: int) -> str:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    with share_bar("drain group 2") as show:
        show(0.25, "12.0 MiB/s, 40 s left, [waiting] for chunk-3")
    return terminal.getvalue()


def test_a_bar_has_its_title_share_and_note(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, 120)
    for part in ("drain group 2", "25%", "12.0 MiB/s, 40 s left, [waiting] for chunk-3"):
        assert part in text


def test_on_a_narrow_terminal_the_note_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, 70)
    assert "drain group 2" in text
    assert "25%" in text
    assert "12.0 MiB/s" in text
    assert "chunk-3" not in text


def test_without_a_terminal_nothing_is_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with share_bar("drain group 2") as show:
        show(0.25, "note")
    assert capsys.readouterr() == ("", "")


def test_json_in_lines_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json_line([{"a": [b"\xab"], "b": "ä\n"}])
    assert capsys.readouterr().out == '[{"a": ["ab"], "b": "ä\\n"}]\n'
