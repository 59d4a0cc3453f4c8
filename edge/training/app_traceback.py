"""An exception of an app as one bounded line: its type, its message, and the app's own lines.

Only file, line number and function travel: no values of variables, and nothing of the libraries
that the app calls.
"""

from __future__ import annotations

import traceback
from pathlib import Path

_MESSAGE_LIMIT = 240
"""Characters of type and message."""
_LINES = 3
"""The innermost of the app's lines: the one that raised, and who called it."""
_LINE_LIMIT = 50
"""Characters of one line's file and function; with the message below a reply's limit of 400."""


def failure_text(error: BaseException, folder: Path) -> str:
    """Describe what an app raised, such as ``ValueError: no data (task.py:3 in load)``.

    Args:
        error: The exception.
        folder: The app's folder. Lines of files outside it are left out.

    """
    text = f"{type(error).__name__}: {error}"
    if len(text) > _MESSAGE_LIMIT:
        text = f"{text[: _MESSAGE_LIMIT - 3]}..."
    lines = app_lines(error, folder)
    return f"{text} ({', '.join(lines)})" if lines else text


def app_lines(error: BaseException, folder: Path) -> list[str]:
    """Return the app's lines in an exception's traceback, the one that raised first."""
    root = folder.resolve()
    found = []
    # Walked without reading the source: the text of a line is not sent.
    for frame, number in traceback.walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(folder):
            name = file.relative_to(folder)
        elif file.is_relative_to(root):
            name = file.relative_to(root)
        else:
            continue
        found.append(_line(name.as_posix(), number, frame.f_code.co_name))
    return found[: -_LINES - 1 : -1]


def _line(file: str, number: int, function: str) -> str:
    place = "" if function == "<module>" else f" in {function}"
    room = _LINE_LIMIT - len(str(number)) - 1
    if len(file) + len(place) > room:  # the end of a path says most
        place = place[:20]
        file = f"...{file[-(room - len(place) - 3) :]}"
    return f"{file}:{number}{place}"
