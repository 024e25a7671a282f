"""`python -m gbgw`, and the `gbgw` command."""

import sys


def main() -> None:
    """Load and run the command line; Ctrl-C while it still loads is no traceback."""
    try:
        from gbgw.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
