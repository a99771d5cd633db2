"""Put finished folders in the place of earlier ones: all or none, whatever happens.

They are made in a hidden workspace on the same disk. The last step is one rename that swaps
the old folder and the new one, or as many as there are courses where the output folder
cannot be swapped as a whole: it holds other things, is a mount, or someone works in it.
"""

import ctypes
import os
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed
    fcntl = None

PREFIX = ".submission-"
LOCK = "lock"  # held open and locked by the build that uses the workspace


@contextmanager
def workspace(output):
    """An empty folder for a new submission that is to go to `output`; removed at the end.

    Also removes what killed builds left behind, not what others still use.
    """
    output = output.resolve()
    place = _place(output)
    place.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(place, output)
    # the name tells whose it is: two output folders may be neighbours
    aside = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{output.name}-", dir=place))
    try:
        with open(aside / LOCK, "w") as lock:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX)
            new = aside / "new"
            new.mkdir()
            yield new
    finally:
        _remove(aside)


def hand_over(new, output):
    """Swap the folders in `new`, one per course, with those in `output`.

    Other files in them stay where they are. Raises OSError, and then nothing was changed.
    """
    output = output.resolve()
    names = sorted(path.name for path in new.iterdir())
    for name in names:
        _keep_other_files(output / name, new / name)
    if not output.exists() or _is_ours(output, names):
        if output.exists():
            shutil.copymode(output, new)
        return _swap(new, output)
    swapped = []
    try:
        for name in names:
            _swap(new / name, output / name)
            swapped.append(name)
    except BaseException:
        for name in swapped:
            _swap(output / name, new / name)
        raise


def problems(output, names):
    """What keeps the courses `names` from being written to `output`: a list of sentences."""
    shown = f"--output {str(output)!r}"
    parent = output
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir():
        return [f"{shown}: {parent} is not a folder."]
    if not os.access(parent, os.W_OK):
        return [f"{shown}: the folder {parent} is read-only."]
    found = []
    for folder in (output / name for name in names):
        if folder.is_symlink() or os.path.lexists(folder) and not folder.is_dir():
            found.append(f"{shown}: {folder} is in the way, it is not a folder.")
        elif folder.exists() and not os.access(folder, os.W_OK):
            found.append(f"{shown}: the folder {folder} is read-only.")
    return found


def _place(output):
    """Where the workspace is: beside `output` when it can be renamed, else within it."""
    parent = output.parent
    while not parent.exists():
        parent = parent.parent
    beside = os.access(parent, os.W_OK) and not os.path.ismount(output)
    # a shell that stands in the folder would be left in the old one
    return output.parent if beside and not _contains_us(output) else output


def _contains_us(output):
    here = Path.cwd()
    return output == here or output in here.parents


def _is_ours(output, names):
    """Whether all that lies in `output` is exchanged, so that it can be swapped whole."""
    entries = {path.name for path in output.iterdir()}
    return _place(output) != output and entries <= set(names)


def _keep_other_files(old, new):
    """Link what only the old folder has into the new one; copy it where links fail."""
    for folder, folders, files in os.walk(old):
        target = new / Path(folder).relative_to(old)
        if target.is_file():
            raise FileExistsError(f"nothing was written: {folder} is in the way")
        target.mkdir(exist_ok=True)
        links = [f for f in folders if os.path.islink(os.path.join(folder, f))]
        for name in files + links:
            if not os.path.lexists(target / name):
                source = os.path.join(folder, name)
                try:
                    os.link(source, target / name, follow_symlinks=False)
                except (OSError, NotImplementedError):
                    shutil.copy2(source, target / name, follow_symlinks=False)
    if old.exists():
        shutil.copymode(old, new)


def _swap(new, old):
    """Exchange two folders in one step; move the new one where there is no old one."""
    if not os.path.lexists(old):
        old.parent.mkdir(parents=True, exist_ok=True)
        os.rename(new, old)
    elif not _rename_exchange(new, old):
        # two steps: a build killed between them leaves its workspace with the old folder,
        # which the next build puts back
        aside = new.parent / f"old-{old.name}"
        os.rename(old, aside)
        try:
            os.rename(new, old)
        except BaseException:
            os.rename(aside, old)
            raise
        os.rename(aside, new)


def _rename_exchange(first, second):
    """Let two paths change places; False where the system has no call for that."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        paths = os.fsencode(first), os.fsencode(second)
        if sys.platform == "darwin":
            return library.renamex_np(*paths, 2) == 0  # RENAME_SWAP
        here = -100  # AT_FDCWD
        return library.renameat2(here, paths[0], here, paths[1], 2) == 0
    except (AttributeError, OSError, TypeError):
        return False


def _remove_abandoned(place, output):
    for left in place.glob(f"{PREFIX}{output.name}-*"):
        with suppress(OSError):
            if _is_abandoned(left):
                for old in left.glob("old-*"):  # killed between the two steps of a swap
                    if not os.path.lexists(output):
                        os.rename(old, output)
                for old in left.glob("new/old-*"):
                    target = output / old.name.removeprefix("old-")
                    if not os.path.lexists(target):
                        os.rename(old, target)
                _remove(left)


def _remove(aside):
    """Remove a workspace, its lock last: without one it counts as just made."""
    for path in aside.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(aside, ignore_errors=True)


def _is_abandoned(left):
    lock = left / LOCK
    if not lock.exists():  # just made, or all but removed
        return time.time() - left.stat().st_mtime > 60
    if not fcntl:
        lock.unlink()  # an error where its build still runs
        return True
    with open(lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an error likewise
        return True
