"""How the documentation is built: `make docs`. Nothing is fetched."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

import figures  # noqa: E402
import reference_pages  # noqa: E402

from anomalyncd import __version__  # noqa: E402

project = "anomalyncd"
version = release = __version__
copyright = "the authors, MIT licence"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
default_role = "literal"  # `name` in docstrings

html_theme = "furo"
html_title = "anomalyncd"
html_copy_source = False

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False

figures.draw(DOCS / "_figures")
reference_pages.write(DOCS / "_reference", DOCS.parent / "anomalyncd")
