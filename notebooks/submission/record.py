"""What a notebook's metadata keep of its last run by this package."""

import hashlib
import json

KEY = "coursework"


def record(notebook, seconds):
    """Keep how long the notebook took, and digests of its code and its outputs."""
    notebook.metadata[KEY] = {"seconds": round(seconds), **_digests(notebook)}


def seconds_taken(notebook):
    """The whole seconds that `record` kept, or None."""
    kept = notebook.metadata.get(KEY)
    seconds = kept.get("seconds") if isinstance(kept, dict) else None
    return seconds if isinstance(seconds, int) else None


def changed_since_run(notebook):
    """Whether the code differs from what was run while the outputs are those of that run."""
    kept, now = notebook.metadata.get(KEY), _digests(notebook)
    if not isinstance(kept, dict):
        return False
    return kept.get("outputs") == now["outputs"] and kept.get("code") != now["code"]


def _digests(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    parts = {
        "code": [cell.source for cell in cells],
        "outputs": [cell.outputs for cell in cells],
    }
    return {
        name: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()
        for name, part in parts.items()
    }
