"""Text in UTF-8, whatever the locale is."""

import os
import sys


def require() -> None:
    """Start this process anew in Python's UTF-8 mode where its locale has another encoding.

    Commands and records hold words that such a locale may lack.
    """
    if sys.flags.utf8_mode or sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, sys.orig_argv)
