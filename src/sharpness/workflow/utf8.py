"""Use UTF-8 whatever the locale is."""

import os
import sys


def require() -> None:
    """Restart this process in Python's UTF-8 mode if its locale has another encoding.

    Commands and records may contain characters that such a locale lacks.
    """
    if sys.flags.utf8_mode or sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, sys.orig_argv)
