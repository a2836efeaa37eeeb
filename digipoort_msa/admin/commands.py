"""``digipoort-msa``: the operator's command, and where its groups come together."""

from pathlib import Path

import click

from digipoort_msa import __version__, config
from digipoort_msa.admin.account import account
from digipoort_msa.admin.console import Console, NotConfigured, json_option, pass_console, print_json
from digipoort_msa.admin.queue import queue
from digipoort_msa.admin.sandbox import sandbox
from digipoort_msa.service.checking import unusable


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="digipoort-msa")
@click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("/etc/digipoort-msa/msa.toml"),
    show_default=True,
    help="The configuration file.",
)
@click.pass_context
def main(context: click.Context, config_file: Path) -> None:
    """The Message Submission Agent for Digipoort.

    The service itself runs as: twistd digipoort-msa --config FILE
    """
    context.obj = Console(config_file)


@main.command()
@json_option
@pass_console
def check(console: Console, as_json: bool) -> None:
    """Say what is wrong with the configuration, or print the effective settings.

    Exits with 78 where something is wrong.  Warnings go to standard error.  With --json the problems, too,
    are a document: {"problems": [{"key": ..., "text": ...}]}.
    """
    try:
        settings = console.load(files=True)
        if problems := tuple(unusable(settings)):
            raise NotConfigured(config.ConfigError(problems, console.config))
    except NotConfigured as error:
        if not as_json:
            raise
        print_json({"problems": [{"key": one.key, "text": str(one)} for one in error.problems]})
        raise SystemExit(error.exit_code) from None
    for warning in config.warnings(settings):
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        print_json(config.as_document(settings))
    else:
        click.echo(config.as_toml(settings), nl=False)


main.add_command(account)
main.add_command(queue)
main.add_command(sandbox)
