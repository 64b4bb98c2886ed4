"""The options that scripts share: -c and -o."""

import argparse


def parser(doc):
    """An argparse parser with `-c CONFIG` and `-o key.sub=value ...`; --help shows `doc`."""
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument('-c', '--config', metavar='CONFIG', help='YAML file of settings (default: configs/zodiac.yaml)')
    result.add_argument(
        '-o',
        '--override',
        metavar='key.sub=value',
        nargs='+',
        action='append',
        default=[],
        help='settings that override the file, as YAML values',
    )
    return result


def overrides_of(args):
    """The `key=value` arguments of a parsed command line, in order."""
    return [override for group in args.override for override in group]
