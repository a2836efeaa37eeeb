"""``digipoort-msa sandbox``: a complete MSA on this machine alone, to try a client against."""

import click


@click.command()
def sandbox() -> None:
    """Run a complete MSA on 127.0.0.1."""
