"""``digipoort-msa``: the operator's command, and where its groups come together.

A group's module is imported when one of its commands is run: most of a short command's time would be spent
on importing the others'.
"""

from importlib import import_module
from pathlib import Path

import click

from digipoort_msa import __version__, config
from digipoort_msa.admin.console import Console, NotConfigured, json_option, pass_console, print_json

#: Each is named as its module in this package, and as the command or group in there.
_ELSEWHERE = {
    "account": "Manage the accounts of a realm.",
    "certificate": "Tell whose login a client certificate would be.",
    "policy": "Show what the rules on trial would refuse.",
    "queue": "Show and manage the messages in the spool.",
    "throttle": "Show and clear what is counted of failed logins.",
    "sandbox": "Run a complete MSA on this machine, to try a client against.",
}


class _Commands(click.Group):
    """Those of this module, and those elsewhere."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted([*super().list_commands(context), *_ELSEWHERE])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _ELSEWHERE:
            return super().get_command(context, name)
        found: click.Command = getattr(import_module(f"digipoort_msa.admin.{name}"), name)
        return found

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of the help text, for which nothing need be imported."""
        with formatter.section("Commands"):
            own = {name: command.get_short_help_str(100) for name, command in self.commands.items()}
            formatter.write_dl(sorted({**own, **_ELSEWHERE}.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
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
        from digipoort_msa.service.checking import unusable

        found = tuple(unusable(settings))
        if problems := [problem for problem in found if not problem.warning]:
            raise NotConfigured(config.ConfigError(problems, console.config))
    except NotConfigured as error:
        if not as_json:
            raise
        print_json({"problems": [{"key": one.key, "text": str(one)} for one in error.problems]})
        raise SystemExit(error.exit_code) from None
    for warning in (*config.warnings(settings), *found):
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        print_json(config.as_document(settings))
    else:
        click.echo(config.as_toml(settings), nl=False)
