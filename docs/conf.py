"""Sphinx: the site of the documentation, built by script/docs with warnings as errors."""

from computeops import __version__

project = "ComputeOps"
author = "The ComputeOps developers"
copyright = "2026, the ComputeOps developers"
version = release = __version__

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "ComputeOps"
html_theme_options = {"top_of_page_buttons": []}
myst_heading_anchors = 3
