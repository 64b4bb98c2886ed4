"""A path of photos on the command line, as the settings that it implies: the name of the run, data.root, annotate.archive or .list."""

import os
import re
import shlex
import sys
import unicodedata

from zodiac.base import runs
from zodiac.base.errors import UserError

UNPACKED = (
    'data'  # folder for unpacked archives, the index files of lists, and links to folders that cannot be written to
)
ARCHIVES = re.compile(r'\.(zip|tgz|tbz2|txz|tar(\.(gz|bz2|xz))?)$', re.IGNORECASE)
LISTS = re.compile(r'\.(csv|tsv|txt|json)$', re.IGNORECASE)
# Names of lists that say nothing of their photos
USUAL = re.compile(r'((train|val|valid|test)[ _-]?)?(list|labels?|annotations?|index)|train', re.IGNORECASE)
LONGEST = 80  # characters of a name


def settings(path):
    """[(key, value, source), ...] of a folder of photos, an archive or a list. For a folder that cannot be written to, links to its content
    are made in data/<name>. Raises UserError if there is nothing at `path`; it names the run of that name, if there is one."""
    run = next(filter(runs.is_run, runs.places(path)), None)
    if run and not os.path.exists(path):
        settings_of_run = shlex.quote(f'{run}/{runs.CONFIG}')
        raise UserError(f'{path}: no such file or folder; to name the run {run}: -c {settings_of_run}')
    require_there(path)
    root = f'./{path}' if path.startswith('-') else path  # so that printed commands do not take it for an option
    found = {'name': name_of(path), 'data.root': root.replace(os.sep, '/').rstrip('/') or '/'}
    if os.path.isfile(path):
        kind = 'annotate.list' if LISTS.search(path) else 'annotate.archive'
        found.update({'data.root': f'{UNPACKED}/{found["name"]}', kind: path})
    elif not os.access(path, os.W_OK):
        found['data.root'] = f'{UNPACKED}/{found["name"]}'
        _link(path, found['data.root'])
    return [(key, value, path) for key, value in found.items()]


def require_there(path):
    """Raise UserError if a path is an address, or if there is no such file or folder."""
    if re.match(r'(https?|ftp|s3)://', path, re.IGNORECASE):
        raise UserError(f'{path}: is an address; download it first: curl -LO {shlex.quote(path)}')
    if not os.path.exists(path):
        raise UserError(f'{path}: no such file or folder')


def name_of(path):
    """The name of a folder, an archive or a list, without characters that the name of a run cannot have; of a list such as train_list.txt
    that of its folder."""
    path = os.path.abspath(path)
    name = os.path.basename(path)
    if os.path.isfile(path):
        name = LISTS.sub('', ARCHIVES.sub('', name))
        if LISTS.search(path) and USUAL.fullmatch(name):
            name = os.path.basename(os.path.dirname(path)) or name
    name = unicodedata.normalize('NFC', name)
    name = re.sub(r'(?:[ _]*[^\w.\- ])+[ _]*', '_', name).lstrip('_.- ')
    return name[:LONGEST].rstrip('_. ') or 'photos'


def _link(folder, root):
    """Link the folders in `folder` into `root`, where the index files can be written. Links to others, and to those that are gone, are
    removed. Raises UserError if `root` has a folder of its own in the place of a link."""
    try:
        os.makedirs(root, exist_ok=True)
        inner = {name for name in os.listdir(folder) if os.path.isdir(os.path.join(folder, name))}
        wanted = {name: os.path.join(os.path.abspath(folder), name) for name in inner}
        for name in os.listdir(root):
            link = os.path.join(root, name)
            if os.path.islink(link) and os.readlink(link) != wanted.get(name):
                os.unlink(link)
            elif name in inner and not os.path.islink(link):
                raise UserError(f'{link}: is in the place of a link to {wanted[name]}; move it away')
        new = inner - set(os.listdir(root))
        for name in new:
            os.symlink(wanted[name], os.path.join(root, name))
    except OSError as error:
        raise UserError(
            f'{folder}: cannot be written to, and {root} cannot be linked to it ({error.strerror}); copy the photos into a folder of yours'
        ) from None
    if new:
        print(
            f'{folder} cannot be written to: the index files are in {root}, with links to the photos', file=sys.stderr
        )
