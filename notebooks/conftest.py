"""Tests run on the bundled sample, unless COURSEWORK_DATA names another folder."""

import os
from pathlib import Path

import hypothesis

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "sample"
# absolute, because each notebook runs in its own folder
os.environ["COURSEWORK_DATA"] = os.path.abspath(
    os.environ.get("COURSEWORK_DATA") or SAMPLE
)

# a slow machine is not a failure
hypothesis.settings.register_profile("coursework", deadline=None)
hypothesis.settings.load_profile("coursework")
