"""Tests run on the bundled sample, unless COURSEWORK_DATA names another folder."""

import os
from pathlib import Path

import hypothesis

# a process per core, so one thread in each: read by PyTorch and by the kernels when they start
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")
# debugpy, which nobody uses here, warns of frozen modules
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
# absolute, because each notebook runs in its own folder
SAMPLE = Path(__file__).resolve().parent.parent / "data" / "sample"
os.environ["COURSEWORK_DATA"] = os.path.abspath(
    os.path.expanduser(os.environ.get("COURSEWORK_DATA") or SAMPLE)
)

# a slow machine is not a failure
hypothesis.settings.register_profile("coursework", deadline=None)
hypothesis.settings.load_profile("coursework")


def pytest_collection_modifyitems(items):
    """Let nbval wait for an output as long as a starved machine needs, not for 5 s."""
    for item in items:
        if hasattr(item, "output_timeout"):
            item.output_timeout = 600
