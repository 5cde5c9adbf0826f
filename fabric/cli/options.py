"""Option types and settings shared by the commands."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click
import msgspec

from fabric.settings import Settings, settings_from


class BadFile(click.ClickException):
    """A file that cannot be used is wrong usage; one line with file, key and reason."""

    exit_code = 2


class HostPort(click.ParamType):  # type: ignore[type-arg]
    """``HOST:PORT`` (IPv6 hosts in brackets); converts to a ``tcp://HOST:PORT`` endpoint."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).removeprefix("tcp://")
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isdigit() or not 0 <= int(port) <= 65535:
            self.fail(f"{value!r} is not HOST:PORT, such as 127.0.0.1:7400", param, ctx)
        return f"tcp://{host}:{port}"


HOST_PORT = HostPort()


def load_config(path: Path | None) -> dict[str, Any]:
    """The TOML file of ``--config`` as a table; an empty one for None.

    Raises click.ClickException that names the file and what is wrong with it.
    """
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise click.ClickException(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{path} is not valid TOML: {error}") from error


def load_settings(path: Path | None) -> Settings:
    """Settings from the ``[settings]`` table of a config file; defaults without one.

    Raises click.ClickException, also for what stands beside that table: nobody would read it.
    """
    config = load_config(path)
    for name in config.keys() - {"settings"}:
        raise click.ClickException(
            f"{path}: {name!r} is not known there; settings stand below a line [settings]"
        )
    try:
        return settings_from(config.get("settings", {}))
    except msgspec.ValidationError as error:
        raise click.ClickException(f"{path}: {error}") from error
