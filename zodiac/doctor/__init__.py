"""Finds out what is wrong with an installation.

Imports: data, base.
Start with: probe.py (looks at the machine and its packages, on the standard library alone), then check_packages.py and check_machine.py
(judge what was found).
"""
