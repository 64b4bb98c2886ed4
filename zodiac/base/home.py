"""A writable home folder for Paddle and VisualDL, which store files there, some already when imported; our cache in it."""

import os
import stat
import sys
import tempfile

KEPT = ('.visualdl', '.cache', '.cache/paddle')  # folders they write to


def problem():
    """Why the home folder cannot be used; '' if it can. In containers, a user without an account often has none."""
    home = os.path.expanduser('~')
    if not os.path.isdir(home):
        return f'HOME = {home}: no such folder'
    places = [home, *(os.path.join(home, name) for name in KEPT if os.path.lexists(os.path.join(home, name)))]
    locked = next((place for place in places if not os.access(place, os.W_OK | os.X_OK)), None)
    return f'HOME = {home}: {locked} cannot be written to' if locked else ''


def ensure():
    """Set HOME to a temporary folder if the home folder cannot be used. Call it before importing Paddle or VisualDL."""
    why = problem()
    if not why:
        return
    os.environ['HOME'] = substitute()  # child processes inherit it
    print(
        f'{why}; Paddle stores its files, such as ImageNet weights, in {os.environ["HOME"]}; to use another folder: export HOME=FOLDER',
        file=sys.stderr,
    )


def substitute():
    """A temporary folder that only this user can write to."""
    user = os.getuid() if hasattr(os, 'getuid') else 'user'
    folder = os.path.join(tempfile.gettempdir(), f'zodiac-{user}')
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        about = os.lstat(folder)
    except OSError:
        return tempfile.mkdtemp(prefix='zodiac-')
    others = hasattr(os, 'getuid') and (about.st_uid != user or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    return tempfile.mkdtemp(prefix='zodiac-') if others or not stat.S_ISDIR(about.st_mode) else folder


def cache_folder():
    """Folder for what can be made again: XDG_CACHE_HOME/zodiac, or ~/.cache/zodiac. It may not exist."""
    above = os.environ.get('XDG_CACHE_HOME', '')
    return os.path.join(above if os.path.isabs(above) else os.path.expanduser('~/.cache'), 'zodiac')
