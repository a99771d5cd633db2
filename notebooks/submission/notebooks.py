"""Notebooks: read them, and know what their last run was made of."""

import ast
import datetime
import hashlib
import json
from pathlib import Path

import nbformat

RECORD = "coursework"  # the key in a notebook's metadata


def read_notebook(path):
    """The notebook in the file `path`. Raises ValueError when it is missing or damaged."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path.name} is missing")
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises whatever the damage leads to
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path.name} is not a valid notebook: {reason}") from error


def code_cells(notebook):
    """The code cells that are not empty: those with an execution number."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if cell.source.strip()]


# ------------------------------------------------------------------- the record of a run
def record_run(notebook, folder, files, data, seconds):
    """Keep in the metadata what the outputs came from, so that a change can be found.

    `files` are the relative paths of what the notebook imported and read from `folder`,
    `data` is "full", "sample" or "none". A rerun with the same outcome keeps its record.
    """
    code, outputs = _digests(notebook)
    files = {name: file_digest(folder / name) for name in sorted(files)}
    new = {"code": code, "data": data, "files": files, "outputs": outputs}
    old = record_of(notebook)
    if {key: old.get(key) for key in new} != new:
        new["date"] = datetime.date.today().isoformat()
        new["seconds"] = round(seconds)
        notebook.metadata[RECORD] = new


def record_of(notebook):
    """The record of the last run, an empty dict where there is none."""
    record = notebook.metadata.get(RECORD)
    return record if isinstance(record, dict) else {}


def used_sample(notebook):
    """Whether the last run was on the sample of the data."""
    return record_of(notebook).get("data") == "sample"


def unfit(path):
    """Why the outputs saved in a notebook can't be handed in: a sentence, or None."""
    try:
        notebook = read_notebook(path)
    except ValueError as error:
        return str(error)
    record, (code, outputs) = record_of(notebook), _digests(notebook)
    if not {"code", "data", "date", "files", "outputs"} <= set(record):
        return f"{path.name} has no record of a run"
    if record["code"] != code:
        return f"{path.name} has code that changed after it was run"
    if record["outputs"] != outputs:
        return f"{path.name} has outputs that were changed or cleared after it was run"
    for name, digest in record["files"].items():
        if not (path.parent / name).is_file():
            return f"{path.name} was run with {name}, which is missing"
        if digest != file_digest(path.parent / name):
            return f"{path.name} was run before {name} changed"
    if record["data"] == "sample":
        return f"{path.name} was run on the sample, which is a trial"
    return None


def is_missing(path):
    """Whether there is no file, or an empty one."""
    return not path.is_file() or not path.stat().st_size


def _digests(notebook):
    """Digests of a notebook's code and of its outputs with their execution numbers."""
    cells = code_cells(notebook)
    code = [_tree(cell.source) for cell in cells]
    return _digest(code), _digest([(c.execution_count, c.outputs) for c in cells])


def file_digest(path):
    """A digest of what a file says: of Python code its syntax tree, else its bytes."""
    if path.suffix == ".py":
        return _digest(_tree(path.read_text("utf-8", errors="replace")))
    # Git may write other line ends on Windows
    content = path.read_bytes().replace(b"\r\n", b"\n")
    return hashlib.sha256(content).hexdigest()[:16]


def _digest(value):
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _tree(source):
    """The syntax tree of some code as lists, without docstrings; else the code itself.

    Unlike ast.dump, it is the same in every version of Python.
    """
    try:
        return _as_lists(ast.parse(source))
    except (SyntaxError, ValueError):  # a magic, or damaged
        return source


def _as_lists(node):
    if isinstance(node, ast.AST):
        fields = [value for _, value in ast.iter_fields(node)]
        kept = [_as_lists(value) for value in fields if value not in (None, [])]
        return [type(node).__name__, *kept]
    if isinstance(node, list):
        return [_as_lists(item) for item in node if not _is_docstring(item)]
    return repr(node)


def _is_docstring(node):
    is_constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_constant and isinstance(node.value.value, str)
