"""Draws the states of a recipient from the table in :mod:`digipoort_msa.spool.states`.

``python docs/delivery_diagram.py`` prints Graphviz source; the documentation build runs it, so the picture
cannot differ from the code.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from digipoort_msa.spool.states import STORED, TABLE, State


def dot() -> str:
    """The diagram; an event that leads back to where it came from is left to the text."""
    lines = [
        "digraph delivery {",
        '  rankdir=LR; node [shape=box, style=rounded, fontname="sans-serif", fontsize=11];',
        '  edge [fontname="sans-serif", fontsize=9];',
    ]
    for state in State:
        style = "rounded" if state in STORED or state is State.REMOVED else "rounded,dashed"
        lines.append(f'  {state.name} [label="{state.value}", style="{style}"];')
    edges: dict[tuple[State, State], list[str]] = {}
    for event, (sources, target) in TABLE.items():
        for source in sorted(sources):
            if target is not None and target is not source:
                edges.setdefault((source, target), []).append(event.value)
    for (source, target), events in edges.items():
        lines.append(f'  {source.name} -> {target.name} [label="{", ".join(events)}"];')
    return "\n".join([*lines, "}"]) + "\n"


if __name__ == "__main__":
    print(dot())
