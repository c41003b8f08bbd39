"""The table of families in the documentation is what the specs declare."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "build_models_page.py"


def script():
    spec = importlib.util.spec_from_file_location("build_models_page", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_table_of_families_is_current():
    module = script()
    text = module.PAGE.read_text()
    assert module.page(text) == text, "run `python scripts/build_models_page.py`"


def test_every_family_has_a_row():
    module = script()
    for family in module.families():
        assert f"\n| `{family}` |" in module.table()


def test_numbers_of_parameters_are_short():
    module = script()
    assert [module.short(n) for n in (2_792_832, 104_386_867, 1_421_513_217)] == ["2.79 M", "104 M", "1.4 B"]
