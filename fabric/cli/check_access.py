"""``fabric registry check-access``: is an access file good, and what does it decide?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fabric.cli.registry import ACCESS_FILE, load_access_file

if TYPE_CHECKING:
    from fabric.driver.registry.access.load import Access

RIGHTS = ["pull", "push", "delete"]


@click.command()
@click.argument("file", type=ACCESS_FILE)
@click.option("--as", "user", default="", help="Who asks.  [default: somebody who did not log in]")
@click.option("--on", "repository", help="The repository.")
@click.option("--do", "right", type=click.Choice(RIGHTS), help="What is asked for.  [default: what may be?]")
@click.pass_context
def command(context: click.Context, file: Path, user: str, repository: str | None, right: str | None) -> None:
    """Check an access FILE, and say what it decides and by which rule.

    Exit status 0: the file is good, and what --do names is allowed; 1: it is refused; 2: the file has a
    mistake.
    """
    access = load_access_file(file)
    if repository is None:
        if user or right is not None:
            raise click.UsageError("--as and --do say something about a repository: name one with --on")
        _describe(file, access)
        return
    if not _explain(access, user, repository, right):
        context.exit(1)


def _describe(file: Path, access: Access) -> None:
    from fabric.driver.registry.access.config import unknown_users

    table = access.table
    login = "tokens" if access.trust is not None else "passwords" if access.passwords is not None else "none"
    facts = {
        "logins": login,
        "rules": str(len(table.rules)) if table.rules is not None else "none: trusts whoever is let in",
        "TLS": "yes" if access.certificate is not None else "no",
        "read-only": "yes" if table.read_only else "no",
        "immutable tags": str(len(table.immutable)) + " patterns" if table.immutable else "none",
    }
    if table.quota is not None:
        facts["quotas"] = str(len(table.quota))
    click.echo(f"{file} is good: " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    if access.passwords is not None:
        for user in unknown_users(table, access.passwords.users):
            click.echo(
                f"warning: {user!r} has no password in {table.users and table.users.htpasswd}", err=True
            )


def _explain(access: Access, user: str, repository: str, right: str | None) -> bool:
    """Tell the decision; returns whether ``right`` is allowed."""
    from fabric.driver.registry.access.policy import Identity
    from fabric.driver.registry.errors import RegistryError
    from fabric.driver.registry.names import repository_name

    try:
        repository_name(repository)
    except RegistryError as error:
        raise click.BadParameter(error.message, param_hint="--on") from error
    if user and not access.challenger.asks_for_login:
        click.echo("warning: there are no logins, so nobody can be somebody", err=True)
    if access.passwords is not None and user and user not in access.passwords.users:
        click.echo(f"warning: {user!r} has no password and cannot log in", err=True)
    decision = access.policy.decide(Identity(user), repository)
    may = [each for each in RIGHTS if each in {allowed.value for allowed in decision.may}]
    reason = f"rule {decision.rule}" if decision.rule else "no rule is about both"
    if access.policy.rules is None:
        reason = "there are no rules"
    if access.trust is not None:
        reason += "; the token must allow it too"
    is_allowed = right is None or right in may
    verdict = "" if right is None else ("yes: " if is_allowed else "no: ")
    rights = " and ".join(may) if may else "do nothing"
    click.echo(f"{verdict}{user or 'somebody without a login'} may {rights} on {repository} ({reason})")
    return is_allowed
