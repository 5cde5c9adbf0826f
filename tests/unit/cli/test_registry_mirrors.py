"""``fabric registry mirrors check``, and how a file of mirrors reaches the role."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from click.testing import CliRunner, Result

from fabric.cli.plan import Front, Layout, Ports, plan_roles
from fabric.cli.registry import command
from fabric.cli.registry_mirrors import mirrors_of, read_mirrors_again


def write(path: Path, upstream: str, repositories: str = "hub/**") -> Path:
    path.write_text(f'[[mirror]]\nrepositories = "{repositories}"\nupstream = "{upstream}"\n')
    return path


def check(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["mirrors", "check", *arguments])


def test_a_good_file(tmp_path: Path) -> None:
    file = write(tmp_path / "mirrors.toml", "https://registry-1.docker.io")
    result = check(str(file))
    assert result.exit_code == 0
    assert "https://registry-1.docker.io" in result.output and "for ever" in result.output
    (described,) = json.loads(check(str(file), "--json").output)
    assert described == {
        "repositories": "hub/**",
        "upstream": "https://registry-1.docker.io",
        "username": "",
        "tag_fresh_s": 60.0,
        "stale_for_s": -1.0,
    }


def test_a_mistake_is_one_line_with_its_key(tmp_path: Path) -> None:
    file = write(tmp_path / "mirrors.toml", "docker.io")
    for arguments in (["mirrors", "check", str(file)], ["--mirrors", str(file), "--http", "127.0.0.1:0"]):
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 2
        assert result.output.startswith(f"Error: {file}: mirror[1].upstream: 'docker.io' is not like")


class _Registry(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        return


def test_upstreams_are_asked(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Registry)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        file = write(tmp_path / "there.toml", f"http://127.0.0.1:{server.server_port}")
        there = check(str(file), "--ask", "--json")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert (there.exit_code, json.loads(there.output)[0]["answers"]) == (0, True)
    away = check(str(write(tmp_path / "away.toml", "http://127.0.0.1:1")), "--ask", "--json")
    (described,) = json.loads(away.output)
    assert (away.exit_code, described["answers"]) == (1, False)
    assert "does not answer" in described["problem"]


def test_a_file_read_again_holds_only_if_it_is_good(tmp_path: Path) -> None:
    file = write(tmp_path / "mirrors.toml", "http://one.example")
    mirrors = mirrors_of(file)
    write(file, "http://two.example", repositories="other/**")
    read_mirrors_again(mirrors, file)
    assert mirrors.of("hub/app") is None
    write(file, "nowhere", repositories="third/**")
    read_mirrors_again(mirrors, file)
    upstream = mirrors.of("other/app")
    assert upstream is not None and upstream.table.upstream == "http://two.example"
    assert mirrors.of("third/app") is None and mirrors.of("") is None


def test_up_passes_the_file_on(tmp_path: Path) -> None:
    ports = Ports("tcp://127.0.0.1:1", "tcp://127.0.0.1:2", "tcp://127.0.0.1:3", "tcp://127.0.0.1:4")
    layout = Layout(1, 1, 1, ["tcp://127.0.0.1:5"])
    roles = plan_roles(layout, ports, tmp_path, None, Front(mirrors=tmp_path / "mirrors.toml"))
    arguments = next(role.arguments for role in roles if role.role == "registry")
    assert arguments[-2:] == ("--mirrors", str(tmp_path / "mirrors.toml"))
