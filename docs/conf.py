"""How the documentation is built: `make docs`. Nothing is fetched."""

from __future__ import annotations

import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
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
# Pages that commands write may leave out a level; a plain word such as `width` may be the name of
# attributes of several classes.
suppress_warnings = ["myst.header", "ref.python"]
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
    app.connect("source-read", _without_links_to_pages_elsewhere)
    app.connect("autodoc-process-docstring", _without_generated_text)


def _without_links_to_pages_elsewhere(app: Sphinx, page: str, source: list[str]) -> None:
    """Pages of the repository that are none of the site are named without a link."""

    def shown(link: re.Match[str]) -> str:
        target = (DOCS / page).parent.joinpath(link[2]).resolve()
        return link[0] if target.is_relative_to(DOCS) else link[1]

    source[0] = re.sub(r"\[([^\]]+)\]\((\.\./[^)#]+\.md)\)", shown, source[0])


def _without_generated_text(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """A dataclass without a docstring gets one from Python, which says nothing new."""
    if what == "class" and lines and lines[0].startswith(name.rpartition(".")[2] + "("):
        lines.clear()
