"""Image classification with PaddlePaddle: from a folder of photos to a tested model that can be deployed.

    zodiac COMMAND --help       # what a command does, its options, examples

`python -m zodiac COMMAND` is the same.
"""

import os
import runpy
import sys

if not __package__:  # python PATH/zodiac
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from zodiac import __version__
from zodiac.base import calls, stops


def main(program=None):
    """Run the command that sys.argv names, in this process.

    Args:
        program: as for `calls.note_call`; None: the program that was started.
    Returns: exit status, unless the command ends the process with its own.
    """
    stops.leave_on_signals()
    calls.note_call(sys.argv[0] if program is None else program)
    name, arguments, known = sys.argv[1:2], sys.argv[2:], calls.commands()
    if name in (['-h'], ['--help'], ['help']):
        print(help_text(known))
    elif name in (['-V'], ['--version']):
        print(f'zodiac {__version__}')
    elif not name:
        print(help_text(known), file=sys.stderr)
        return 2
    elif name[0] not in known:
        print(f'error: {name[0]}: no such command{nearest(name[0], known)}', file=sys.stderr)
        return 2
    else:
        execute(known[name[0]], arguments)
    return 0


def help_text(known):
    """The usage, with the first line of each command."""
    lines = []
    for name, path in known.items():
        with open(path, encoding='utf-8') as file:
            lines.append(f'  {name:<12}{file.readline().strip().strip(chr(34))}')
    return '\n'.join(['usage: zodiac COMMAND [options]\n', __doc__, 'commands:', *map(calls.as_called, lines)])


def nearest(name, known):
    """The end of the message about an unknown command."""
    import difflib  # takes milliseconds, which commands do without

    near = difflib.get_close_matches(name.replace('.py', '').lower(), known, 1)
    return f'; did you mean {calls.prefix()} {near[0]}?' if near else f'; {calls.prefix()} --help lists the commands'


def execute(path, arguments):
    """Run a script as if Python had been started with it."""
    if not calls.INSTALLED:
        sys.path.insert(0, calls.FOLDER)
    sys.argv = [path, *arguments]
    if path.startswith(calls.PACKAGE):
        relative = os.path.relpath(path, calls.ROOT)[: -len('.py')]
        runpy.run_module(relative.replace(os.sep, '.'), run_name='__main__', alter_sys=True)
    else:
        runpy.run_path(path, run_name='__main__')


if __name__ == '__main__':
    if __package__ and not (sys.flags.isolated or getattr(sys.flags, 'safe_path', False)):
        del sys.path[0]  # the working directory, of `python -m`: modules of the user must not replace those of packages
    sys.exit(main(''))
