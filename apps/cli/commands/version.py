"""``taskbus version``."""

from __future__ import annotations

import click

from apps.cli.group import version_text

__all__ = ["command"]


@click.command()
def command() -> None:
    """Print the version."""
    click.echo(version_text())
