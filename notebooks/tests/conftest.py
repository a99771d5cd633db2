"""Tests marked `item` run on our answers, or on somebody's: python -m submission check."""

import functools
import json
import signal
from pathlib import Path

import pytest
from items import ANSWERS, Answer, Finding, TooLong, explained


def pytest_addoption(parser):
    group = parser.getgroup("answers")
    help = "run the tests marked `item` on the answer at PATH (can be repeated)"
    group.addoption("--answers", action="append", metavar="COURSE=PATH", help=help)
    group.addoption(
        "--report", metavar="FILE", help="write the outcomes of items there"
    )
    help = "processor time that an item may take, in seconds"
    group.addoption("--limit", type=float, default=600, help=help)


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "item(name, checked, times=1): an item of a sheet"
    )
    config.rows = {}


@functools.cache
def answers(course, given):
    found = [part.partition("=")[2] for part in given if part.startswith(f"{course}=")]
    return [Answer(Path(p), True) for p in found] or [Answer(ANSWERS[course])]


def pytest_generate_tests(metafunc):
    """`answer` is each of the answers that are given for the module's course, or ours."""
    if "answer" in metafunc.fixturenames:
        course = metafunc.module.__name__.split("_")[1]
        given = tuple(metafunc.config.getoption("--answers") or ())
        these = answers(course, given)
        ids = [f"answer {number}" for number in range(len(these))]
        metafunc.parametrize("answer", these, ids=ids, scope="module")


def pytest_collection_modifyitems(config, items):
    """Select the items, when an answer is given."""
    if config.getoption("--answers"):
        items[:] = [item for item in items if item.get_closest_marker("item")]


def pytest_collection_finish(session):
    for item in session.items:
        if mark := item.get_closest_marker("item"):
            row = {"item": mark.args[0].split()[1], "checked": mark.args[1]}
            row |= {"passed": None, "case": "not reached: the check was stopped"}
            row["answer"] = str(item.callspec.params["answer"].path)
            session.config.rows[item.nodeid] = row


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Stop an item of an answer at the limit."""
    if item.nodeid not in item.config.rows or not hasattr(signal, "setitimer"):
        return (yield)

    def stop(*_):
        raise TooLong

    signal.signal(signal.SIGPROF, stop)
    times = item.get_closest_marker("item").kwargs.get("times", 1)
    signal.setitimer(signal.ITIMER_PROF, times * item.config.getoption("--limit"))
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Keep the outcome of an item, and write those so far to --report."""
    report, row = (yield), item.config.rows.get(item.nodeid)
    if row and (call.when == "call" or call.excinfo):
        error = call.excinfo.value if call.excinfo else ""
        if isinstance(error, TooLong):
            error = Finding(row["checked"], "no end within the limit", "an end")
        elif isinstance(error, Exception) and not isinstance(error, Finding):
            error = Finding(row["checked"], explained(error), "no error")
        row |= {"passed": None if report.skipped else report.passed, "case": str(error)}
        row["checked"] += "".join(
            f" ({how})" for how in dict(item.user_properties).values()
        )
        row["notes"] = item.callspec.params["answer"].notes
        if file := item.config.getoption("--report"):
            Path(file).write_text(json.dumps(list(item.config.rows.values())), "utf-8")
    return report
