"""Draws the session's state diagram from the table in :mod:`digipoort_msa.smtp.states`.

``python docs/state_diagram.py`` prints Graphviz source; the documentation build runs it, so the picture
cannot differ from the code.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from digipoort_msa.smtp.states import TABLE, Outcome, State

_MARKS = {Outcome.YES: "", Outcome.MORE: " (more)", Outcome.NO: " (no)"}


def dot() -> str:
    """The diagram; commands that lead back to their own state stand inside it."""
    lines = [
        "digraph session {",
        '  rankdir=TB; node [shape=box, style=rounded, fontname="sans-serif", fontsize=11];',
        '  edge [fontname="sans-serif", fontsize=9];',
    ]
    for state in State:
        staying = [verb.value for verb, row in TABLE[state].items() if not row]
        inside = "\\n".join([state.name, state.value, *([" ".join(staying)] if staying else [])])
        lines.append(f'  {state.name} [label="{inside}"];')
    for state, verbs in TABLE.items():
        edges: dict[State, list[str]] = {}
        for verb, row in verbs.items():
            for outcome, target in row.items():
                edges.setdefault(target, []).append(verb.value + _MARKS[outcome])
        for target, labels in edges.items():
            label = "\\n".join(labels)
            lines.append(f'  {state.name} -> {target.name} [label="{label}"];')
    return "\n".join([*lines, "}"]) + "\n"


if __name__ == "__main__":
    print(dot())
