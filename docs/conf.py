"""Sphinx's configuration; makes everything that is drawn from the program before it reads a page."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import client_recipes  # noqa: E402
import delivery_diagram  # noqa: E402
import event_table  # noqa: E402
import reply_table  # noqa: E402
import settings_table  # noqa: E402
import state_diagram  # noqa: E402
import trace_table  # noqa: E402

from digipoort_msa import __version__  # noqa: E402

project = "digipoort-msa"
author = "the digipoort-msa developers"
version = release = __version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.graphviz"]
autodoc_member_order = "bysource"
graphviz_output_format = "svg"
exclude_patterns = ["_build", "generated", "skeleton"]
html_theme = "alabaster"
html_theme_options = {"page_width": "1100px"}
nitpicky = False

GENERATED = HERE / "generated"
GENERATED.mkdir(exist_ok=True)
for name, text in {
    "clients.inc": client_recipes.text(),
    "delivery.dot": delivery_diagram.dot(),
    "events.inc": event_table.text(),
    "replies.inc": reply_table.text(),
    "settings.inc": settings_table.text(),
    "states.dot": state_diagram.dot(),
    "trace.inc": trace_table.table(),
}.items():
    (GENERATED / name).write_text(text, encoding="utf-8")
