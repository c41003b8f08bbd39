"""How the documentation is built: `sphinx-build -W docs docs/_build`."""

from __future__ import annotations

import os
import re
from importlib.metadata import version as installed_version

project = "sclcm"
author = "sclcm developers"
project_copyright = "2026, sclcm developers"
release = version = installed_version("sclcm")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]

# Notebooks are committed with their outputs.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = False
default_role = "code"
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"sclcm {release}"

# Links to the documentation of others need the network, which a build elsewhere does not.
if os.environ.get("READTHEDOCS"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3/", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }


def _slots_as_code(_app, _what, _name, _obj, _options, lines):
    """Set the slots that functions list under Returns as code, where napoleon makes them bold with their backticks."""
    lines[:] = [re.sub(r"\*\*`(.+?)`\*\*", r"``\1``", line) for line in lines]


def setup(app):
    """Run after napoleon, which has the default priority of 500."""
    app.connect("autodoc-process-docstring", _slots_as_code, priority=900)
