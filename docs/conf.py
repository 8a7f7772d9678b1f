"""How Sphinx builds the documentation: ``make docs``."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
# Tutorials run on one thread, so that they take no more than they need, and call the `wtdiag` beside this Python.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    "PYTHONPATH": os.pathsep.join(filter(None, [sys.path[0], os.environ.get("PYTHONPATH")])),
}

import wtdiag
from wtdiag.probes.records.schema import FORMAT

project = "wtdiag"
copyright = "The wtdiag maintainers"  # noqa: A001  (the name that Sphinx reads)
author = "The wtdiag maintainers"
version = release = wtdiag.__version__

extensions = [
    "myst_nb",  # pages and tutorials in Markdown; the tutorials are executed
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_design",  # cards
    "sphinx_copybutton",
    "drawing",  # of a network with W and B
    "public_names",  # the page about them, from their docstrings
    "registries",  # the pages about rules, measures, findings, settings and commands, from their definitions
]
exclude_patterns = ["_build"]
nitpicky = False
suppress_warnings = ["config.cache"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "substitution"]
myst_heading_anchors = 3
myst_substitutions = {"snapshot_format": FORMAT}
nb_execution_mode = "cache"  # in _build: a tutorial runs again when its code changes
nb_execution_cache_path = str(Path(__file__).parent / "_build" / "notebooks")
nb_execution_raise_on_error = True
nb_execution_in_temp = True  # what they write is gone afterwards
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_merge_streams = True

autodoc_typehints = "none"  # numpydoc's sections say what arguments are
numpydoc_show_class_members = False
toc_object_entries = False  # names have headings of their own

html_theme = "pydata_sphinx_theme"
html_title = f"wtdiag {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "wtdiag"},
    "navbar_align": "left",
    "navbar_persistent": ["search-button"],
    "show_toc_level": 2,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
copybutton_exclude = ".linenos, .gp, .go"
