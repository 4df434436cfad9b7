"""`geoseg`, and `python -m geoseg`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C before it is imported ends without a traceback too."""
    try:
        from geoseg import cli
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
