"""What the tests of an item use: an answer's files, comparisons, findings.

An answer is ours, or somebody's with --answers COURSE=PATH (python -m submission check).
"""

import contextlib
import importlib
import io
import sys
import traceback
import types
from pathlib import Path

import numpy as np

NOTEBOOKS = Path(__file__).resolve().parent.parent
ANSWERS = {  # ours
    "ece1508": NOTEBOOKS / "ece1508_recurrent_networks/mnist_rnn_gru_lstm.ipynb",
    "cs324": NOTEBOOKS / "cs324_lstm_gan",
    "tdl211": NOTEBOOKS / "tdl211_layers",
    "ee519": NOTEBOOKS / "ee519_mytorch",
}
LABELS = ("called", "came out", "expected")
used = {*ANSWERS.values(), ANSWERS["ee519"] / "mytorch"}  # folders modules came from


class Finding(AssertionError):
    """What is wrong: what was called, what came out, what was expected; a line each."""

    def __init__(self, *lines):
        lines = [" ".join(str(line).split()) for line in lines]
        lines = [a if len(a) <= 82 else a[:80] + " …" for a in lines]
        super().__init__("\n".join(f"{a:9} {b}" for a, b in zip(LABELS, lines)))


class TooLong(BaseException):
    """Beyond the limit (an answer might catch an Exception)."""


class Answer:
    """The files of an answer; a `foreign` one's modules take the place of ours."""

    def __init__(self, path, foreign=False):
        self.path, self.foreign, self.loaded, self.notes = path, foreign, {}, []

    def get(self, file, name):
        """What `file` calls `name`; raises Finding where it calls nothing so."""
        module = self.load(file)
        if not hasattr(module, name):
            there = ", ".join(key for key in vars(module) if key[0] != "_")
            raise Finding(f"{name} of {file}", f"no such name; there are {there}", name)
        return getattr(module, name)

    def load(self, file, loader=None):
        """The module in `file`, imported once; raises Finding where it can't be."""
        if file not in self.loaded:
            call = f"import of {file}"
            end = "no end: training belongs under if __name__ == '__main__'"
            self.loaded[file] = call, end, "definitions only"
            printed, argv, sys.argv = io.StringIO(), sys.argv, [file]
            try:
                with contextlib.redirect_stdout(printed):
                    self.loaded[file] = (loader or self.imported)(file)
            except FileNotFoundError as error:
                self.loaded[file] = call, error, f"{file}, as the sheet names it"
            except (Exception, SystemExit) as error:  # noqa: BLE001 (it is kept)
                self.loaded[file] = call, explained(error), "no error"
            except TooLong:
                pass
            sys.argv = argv
            if text := printed.getvalue().strip():
                self.notes.append(f"{file} prints when it is imported: {text:.30}")
        if isinstance(self.loaded[file], tuple):
            raise Finding(*self.loaded[file])
        return self.loaded[file]

    def imported(self, file):
        path = self.path / file
        path = path if path.is_file() else self.path / path.name
        if not path.is_file():
            there = ", ".join(sorted(p.name for p in self.path.iterdir())) or "nothing"
            raise FileNotFoundError(f"no such file; there is {there}")
        folder, package = path.parent, Path(file).parent.name
        if self.foreign and not self.loaded.get("alone"):
            self.loaded["alone"] = True
            sys.path[:] = [p for p in sys.path if Path(p) not in used]
            for name, module in list(sys.modules.items()):
                origin = Path(getattr(module, "__file__", None) or "built-in").parent
                if (
                    origin in used
                    or name == "helpers"
                    and (folder / "helpers.py").is_file()
                ):
                    del sys.modules[name]
        for entry in [folder, folder.parent] if package else [folder]:
            used.add(entry)
            if str(entry) not in sys.path:
                sys.path.insert(0, str(entry))
        name = f"{package}.{path.stem}".strip(".")
        if package and package not in sys.modules:
            module = sys.modules[package] = types.ModuleType(package)
            module.__package__, module.__path__ = package, [str(folder)]
            module.__file__ = str(folder / "__init__.py")
        try:
            return importlib.import_module(name)
        except ImportError:  # perhaps of a name that only __init__.py defines
            init = folder / "__init__.py"
            if not package or not init.is_file():
                raise
            exec(compile(init.read_bytes(), init, "exec"), vars(sys.modules[package]))  # noqa: S102
            return importlib.import_module(name)


def attempt(called, function, expected):
    """What `function()` returns; raises Finding where it raises an error."""
    try:
        return function()
    except Finding:
        raise
    except (Exception, SystemExit) as error:
        raise Finding(called, explained(error), expected) from error


def expect(called, result, expected, by, margin=None):
    """Raise Finding unless `result` is `expected`, up to rounding or `margin`.

    `result` may be a function that returns it. `called` says what was called, `by` which
    equation wants the expected value.
    """
    expected = np.asarray(expected)
    wanted = f"{shown(expected)} ({by})"
    result = attempt(called, result, wanted) if callable(result) else result
    result = result.detach().numpy() if hasattr(result, "detach") else result
    if np.shape(result) != expected.shape:
        kind = f"of shape {np.shape(result)}: {shown(result)}"
        raise Finding(called, kind, f"of shape {expected.shape} ({by})")
    result, scale = np.asarray(result, float), abs(expected).max()
    if not (abs(result - expected) <= (margin or 1e-4 * max(scale, 1e-3))).all():
        with np.errstate(all="ignore"):
            ratio = (result / expected)[expected != 0].ravel()
        same = len(ratio) and np.isfinite(ratio).all() and np.ptp(ratio) < 1e-3
        times = f", {ratio[0]:.3g} times the expected" if same and ratio[0] else ""
        raise Finding(called, shown(result) + times, wanted)


def shown(value):
    """A value in one line; of a large array its corners."""
    options = {"precision": 4, "suppress": True, "threshold": 9, "edgeitems": 1}
    with np.printoptions(**options):
        return " ".join(str(value).split())


def explained(error):
    """The error in one line, with the place in the answer where it arose."""
    first = (str(error).splitlines() or [""])[0]
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename).parent in used or ", cell " in frame.filename:
            place = f" ({Path(frame.filename).name}, line {frame.lineno})"
    return f"{type(error).__name__}: {first}{place}"
