"""The command line: ``main`` parses and reports failures, ``commands/`` has the commands, and
``entry`` is the console script.

Nothing imports from here but the console script and tests.
"""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells give it: 128 + SIGINT."""
