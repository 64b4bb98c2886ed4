"""How the scripts are called, for the commands in messages."""

import shlex

from zodiac.base.packages import here, python


def command(name, *arguments):
    """The shell command that runs a script, such as 'train', with arguments, from the working directory."""
    return ' '.join([python(), here(f'{name}.py'), *map(shlex.quote, arguments)])
