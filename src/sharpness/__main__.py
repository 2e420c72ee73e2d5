"""``python -m sharpness`` is the command ``sharpness``, for a checkout that is not installed."""

from sharpness.command.main import main

if __name__ == "__main__":
    main()
