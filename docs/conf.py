"""How the documentation is built: `make docs`. Nothing is fetched."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

import figures  # noqa: E402
import reference_pages  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

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
autoclass_content = "both"  # the class and its constructor
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False

figures.draw(DOCS / "_figures")
reference_pages.write(DOCS / "_reference", DOCS.parent / "anomalyncd")


def setup(app: Sphinx) -> None:
    """Leave out the text that a dataclass without a docstring gets from Python."""

    def drop_generated(_: Sphinx, what: str, name: str, __: object, ___: object, lines: list[str]):
        if what == "class" and lines and lines[0].startswith(name.rpartition(".")[2] + "("):
            lines.clear()

    app.connect("autodoc-process-docstring", drop_generated)
