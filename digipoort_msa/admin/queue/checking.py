"""``verify`` and ``backup``: whether the spool is whole, and a copy of it."""

from pathlib import Path
from typing import Any

import click

from digipoort_msa.admin.console import Console, json_option, pass_console
from digipoort_msa.admin.queue.group import opened, progress, with_spool
from digipoort_msa.admin.queue.printing import complain, counted, print_document, printable
from digipoort_msa.spool.backup import back_up
from digipoort_msa.spool.inspection import Inspection
from digipoort_msa.spool.integrity import Finding, Verification


@click.command()
@click.option("--quick", is_flag=True, help="Do not read the contents, nor compare SQLite's indexes.")
@json_option
@with_spool
def verify(inspection: Inspection, quick: bool, as_json: bool) -> None:
    """Check the database, every row, and each content against its SHA-256; change nothing.

    Exits with 1 where something is damaged.  What mends itself at the next start is noted only.
    """
    with progress(1, "Verifying") as step:
        verification = Verification(inspection, quick=quick, progress=step)
        found = list(verification.findings())
    damage = [finding for finding in found if finding.damage]
    if as_json:
        print_document(
            {
                "checked": verification.checked,
                "without-digest": verification.without_digest,
                "damage": [_document(finding) for finding in damage],
                "notes": [_document(finding) for finding in found if not finding.damage],
            }
        )
    else:
        for finding in found:
            click.echo(
                f"{'' if finding.damage else 'note: '}{printable(finding.where)}: {printable(finding.text)}"
            )
        without = verification.without_digest
        click.echo(
            f"{counted(verification.checked)} checked, {len(damage) or 'nothing'} damaged"
            + (f"; {without} without a SHA-256 (kept by an earlier release)" if without else "")
            + ("; contents were not read" if quick else "")
        )
    if damage:
        raise SystemExit(1)


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@json_option
@pass_console
def backup(console: Console, folder: Path, as_json: bool) -> None:
    """Make a consistent copy of the spool: a new folder that can take its place.

    On the spool's own file system a large content is linked, not copied.
    """
    with opened(console) as inspection, progress(1, "Copying") as step:
        made = back_up(inspection, folder, watermark=console.settings.spool.watermark, progress=step)
    if as_json:
        print_document(
            {
                "folder": str(made.folder),
                "messages": made.messages,
                "files": made.files,
                "ended-meanwhile": made.ended,
                "missing": list(made.missing),
            }
        )
    else:
        click.echo(f"{counted(made.messages)} in {printable(made.folder)}, {made.files} with a file")
    complain((queue_id, "its body file is missing in the spool, too") for queue_id in made.missing)
    if made.missing:
        raise SystemExit(1)


def _document(finding: Finding) -> dict[str, Any]:
    return {"where": finding.where, "text": finding.text}
