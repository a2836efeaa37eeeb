"""``digipoort-msa queue``: what waits in the spool, and what an operator may do about it.

Every command works beside the running MSA, which sees a change within a second, and without it.

Exit status: 0, all of it was done; 1, something that was asked for is not there or could not be done (the
rest was, and is reported), or the spool cannot be used; 2, a wrong command line; 78, the configuration is at
fault.  Tables and JSON go to standard output, everything else to standard error.
"""

from digipoort_msa.admin.queue.archive import export, import_
from digipoort_msa.admin.queue.checking import backup, verify
from digipoort_msa.admin.queue.group import queue
from digipoort_msa.admin.queue.looking import cat, list_, show, stats
from digipoort_msa.admin.queue.ordering import hold, move, release, remove, retry, return_

__all__ = ["queue"]

for _command in (
    list_,
    show,
    cat,
    retry,
    hold,
    release,
    return_,
    remove,
    move,
    export,
    import_,
    stats,
    verify,
    backup,
):
    queue.add_command(_command)
