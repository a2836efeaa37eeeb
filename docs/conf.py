"""Sphinx's configuration; makes the trace table and the state diagram before it reads a page."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import state_diagram  # noqa: E402
import trace_table  # noqa: E402

from digipoort_msa import __version__  # noqa: E402

project = "digipoort-msa"
author = "the digipoort-msa developers"
version = release = __version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.graphviz"]
autodoc_member_order = "bysource"
graphviz_output_format = "svg"
exclude_patterns = ["_build", "generated"]
html_theme = "alabaster"
html_theme_options = {"page_width": "1100px"}
nitpicky = False

GENERATED = HERE / "generated"
GENERATED.mkdir(exist_ok=True)
(GENERATED / "trace.inc").write_text(trace_table.table(), encoding="utf-8")
(GENERATED / "states.dot").write_text(state_diagram.dot(), encoding="utf-8")
