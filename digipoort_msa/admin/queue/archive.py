"""``export`` and ``import``: messages as files, and back."""

from pathlib import Path

import click

from digipoort_msa.admin.console import Console, json_option, pass_console
from digipoort_msa.admin.queue.group import opened, progress
from digipoort_msa.admin.queue.printing import complain, counted, print_document
from digipoort_msa.admin.queue.selecting import Chosen, messages
from digipoort_msa.admin.queue.wiring import rules_of, sealing
from digipoort_msa.spool.exporting import Export, Gone, NotExported
from digipoort_msa.spool.importing import AlreadyHere, Import, NotImported, envelopes
from digipoort_msa.spool.schema import SpoolError

_HELD = "it was imported to be held"


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@messages
@click.option("--force", is_flag=True, help="Replace files that are there.")
@json_option
@pass_console
def export(console: Console, folder: Path, chosen: Chosen, force: bool, as_json: bool) -> None:
    """Write messages to a folder: ID.eml, the octets, and ID.json, the envelope.

    They stay in the spool.  Content that the spool encrypts is in clear in these files.
    """
    done: list[str] = []
    refused: dict[str, str] = {}
    with opened(console) as inspection:
        key = sealing(console.settings)
        queue_ids = chosen.queue_ids(inspection)
        with (
            Export(inspection, folder, key, force=force) as export,
            progress(len(queue_ids), "Exporting") as step,
        ):
            for number, queue_id in enumerate(queue_ids, 1):
                try:
                    export.write(queue_id)
                    done.append(queue_id)
                except Gone as error:
                    if chosen.named:
                        refused[queue_id] = str(error)
                except NotExported as error:
                    refused[queue_id] = str(error)
                except SpoolError as error:
                    refused[queue_id] = str(error)
                    break
                step(number, len(queue_ids))
    _report(done, refused, f"exported to {folder}", as_json)


@click.command("import")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--hold", is_flag=True, help="Hold them; `release` has them tried.")
@json_option
@pass_console
def import_(console: Console, paths: tuple[Path, ...], hold: bool, as_json: bool) -> None:
    """Take messages that `export` has written into the spool: every one of a folder, or single files.

    They keep their ids.  One that is in the spool already is skipped.
    """
    done: list[str] = []
    skipped: list[str] = []
    refused: dict[str, str] = {}
    with opened(console) as inspection:
        try:
            files = list(envelopes(paths))
        except NotImported as error:
            raise click.ClickException(str(error)) from error
        try:
            importing = Import(inspection, rules_of(console.settings), hold=_HELD if hold else None)
        except SpoolError as error:
            raise click.ClickException(str(error)) from error
        with importing as taking, progress(len(files), "Importing") as step:
            for number, file in enumerate(files, 1):
                try:
                    done.append(taking.read(file))
                except AlreadyHere as error:
                    skipped.append(file.stem)
                    complain([("skipped", str(error))])
                except NotImported as error:
                    refused[str(file)] = str(error).removeprefix(f"{file}: ")
                except SpoolError as error:
                    refused[str(file)] = str(error)
                    break
                step(number, len(files))
    _report(done, refused, "imported", as_json, skipped)


def _report(
    done: list[str], refused: dict[str, str], what: str, as_json: bool, skipped: list[str] | None = None
) -> None:
    if as_json:
        document: dict[str, object] = {
            "done": done,
            "refused": [{"what": each, "reason": why} for each, why in refused.items()],
        }
        print_document(document if skipped is None else {**document, "skipped": skipped})
    else:
        click.echo(f"{counted(len(done))} {what}")
    complain(refused.items())
    if refused:
        raise SystemExit(1)
