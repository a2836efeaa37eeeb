"""What a tree of processes has used, read from /proc (proc(5)): threads, living children and reaped ones."""

import os
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of the tree; that of a child that has ended is with its parent's."""
    total = 0
    for process in tree(root):
        fields = _stat(process)
        total += sum(map(int, fields[11:15])) if fields else 0
    return total * _TICK


def memory(root: int) -> int:
    """Octets of the tree: what is shared by n processes counts 1/n with each (Pss)."""
    total = 0
    for process in tree(root):
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue  # it has just ended
        total += sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
    return total


def _stat(process: int) -> list[str]:
    """The fields behind the command's name: state, parent, ..."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()
