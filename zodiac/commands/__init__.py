"""Commands that are run rarely: `zodiac NAME` and `python -m zodiac NAME` run NAME.py here, with the habits of the scripts at the top.

Imports: scripts, and every wing. Nothing imports a command.
To add one, write its module here: it opens with one line for `zodiac --help`, prepares with `start.prepare`, and ends with `run(main)`.
"""
