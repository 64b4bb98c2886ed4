"""A home folder for Paddle and VisualDL, which keep files in it, one of them at its import."""

import os
import stat
import sys
import tempfile

KEPT = ('.visualdl', '.cache', '.cache/paddle')  # what they write to


def problem():
    """Why the home folder cannot be used, '' where it can. In a container, an unknown user often has none."""
    home = os.path.expanduser('~')
    if not os.path.isdir(home):
        return f'HOME = {home}: no such folder'
    places = [home, *(os.path.join(home, name) for name in KEPT if os.path.lexists(os.path.join(home, name)))]
    locked = next((place for place in places if not os.access(place, os.W_OK | os.X_OK)), None)
    return f'HOME = {home}: {locked} cannot be written to' if locked else ''


def ensure():
    """Before the import of Paddle or VisualDL: where the home folder cannot be used, take one among the temporary files."""
    why = problem()
    if not why:
        return
    os.environ['HOME'] = substitute()  # for the processes that this one starts, too
    print(
        f'{why}; what Paddle keeps there, such as ImageNet weights, goes to {os.environ["HOME"]}; to keep it elsewhere: export HOME=FOLDER',
        file=sys.stderr,
    )


def substitute():
    """A folder among the temporary files that is this user's alone."""
    user = os.getuid() if hasattr(os, 'getuid') else 'user'
    folder = os.path.join(tempfile.gettempdir(), f'zodiac-{user}')
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        about = os.lstat(folder)
    except OSError:
        return tempfile.mkdtemp(prefix='zodiac-')
    others = hasattr(os, 'getuid') and (about.st_uid != user or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    return tempfile.mkdtemp(prefix='zodiac-') if others or not stat.S_ISDIR(about.st_mode) else folder
