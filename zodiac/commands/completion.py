"""Print the completion of `zodiac` for a shell: commands, options, names of recipes and runs, files.

    zodiac completion bash > ~/.local/share/bash-completion/completions/zodiac
    zodiac completion zsh > "${fpath[1]}/_zodiac"
    zodiac completion fish > ~/.config/fish/completions/zodiac.fish

Each takes effect in the next shell. After an update of Zodiac print it again: commands and options are part of it.
"""

if __name__ == '__main__':
    from zodiac.base import start

    start.prepare()

import argparse
import concurrent.futures
import os
import re
import subprocess
import sys

import zodiac
from zodiac.base import calls
from zodiac.base.errors import run

BASH = """\
# Completion of zodiac {version} for bash, made by: zodiac completion bash
_zodiac() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words
    if [ "$COMP_CWORD" = 1 ]; then
        words='{commands} --help --version'
    elif [ "$before" = -c ] || [ "$before" = --config ]; then
        words='{recipes}'
    elif [[ $word == -* ]]; then
        case ${{COMP_WORDS[1]}} in
{cases}
        esac
    else
        words=$(command ls output 2>/dev/null)
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word") $(compgen -f -- "$word"))
}}
complete -o filenames -F _zodiac zodiac
"""
ZSH = """\
#compdef zodiac
# Completion of zodiac {version} for zsh, made by: zodiac completion zsh
if (( CURRENT == 2 )); then
    compadd -- {commands} --help --version
elif [[ $words[CURRENT-1] == (-c|--config) ]]; then
    compadd -- {recipes}; _files
elif [[ $PREFIX == -* ]]; then
    case $words[2] in
{cases}
    esac
else
    compadd -- output/*(N:t); _files
fi
"""
FISH = """\
# Completion of zodiac {version} for fish, made by: zodiac completion fish
complete -c zodiac -n __fish_use_subcommand -f -a '{commands}'
complete -c zodiac -n 'not __fish_use_subcommand' -a '(command ls output 2>/dev/null)'
complete -c zodiac -s c -l config -r -a '{recipes}'
{cases}
"""
SHELLS = {  # the text, and one line of it for the options of a command
    'bash': (BASH, "            {name}) words='{options}' ;;"),
    'zsh': (ZSH, '        {name}) compadd -- {options} ;;'),
    'fish': (FISH, "complete -c zodiac -n '__fish_seen_subcommand_from {name}' -f -a '{options}'"),
}


def main():
    parser = argparse.ArgumentParser(**calls.how_called(__doc__))
    parser.add_argument('shell', choices=SHELLS)
    text, line = SHELLS[parser.parse_args().shell]
    known = calls.commands()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        cases = [
            line.format(name=name, options=' '.join(options))
            for name, options in zip(known, pool.map(options_of, known))
        ]
    recipes = sorted(name[: -len('.yaml')] for name in os.listdir(os.path.join(calls.FOLDER, 'configs')))
    filled = {'commands': ' '.join(known), 'recipes': ' '.join(recipes), 'cases': '\n'.join(cases)}
    print(text.format(version=zodiac.__version__, **filled), end='')


def options_of(name):
    """The options that `zodiac NAME --help` lists; none if the packages of the command are not installed."""
    command = [sys.executable, calls.PACKAGE, name, '--help']
    text = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return re.findall(r'^  (?:-\w.*?, )?(--[a-z-]+)', text, re.MULTILINE)


if __name__ == '__main__':
    run(main)
