"""What is wrong with an installation: facts are probed, then judged.

Imports: data, base.
Start with: probe.py (facts, on the standard library alone), then check_packages.py and check_machine.py (judgements).
"""
