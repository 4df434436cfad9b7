"""`python -m geoseg.testing FOLDER [--seed N] [--kind plain|dense]`: write the sample scene, or another."""

import argparse
from pathlib import Path

from geoseg.testing.sample import SAMPLE_SEED, write_sample
from geoseg.testing.style import KINDS


def main() -> None:
    """Parse the command line, write the sample, print the paths."""
    parser = argparse.ArgumentParser(
        prog="python -m geoseg.testing", description="Write a painted scene with its true footprints."
    )
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument(
        "--seed", type=int, default=SAMPLE_SEED, help="which scene (default: the committed sample's, %(default)s)"
    )
    parser.add_argument(
        "--kind", choices=list(KINDS), default="plain", help="dense: towns whose buildings share walls (default: plain)"
    )
    options = parser.parse_args()
    for path in write_sample(options.folder, seed=options.seed, kind=options.kind):
        print(path)  # noqa: T201 - the result of a command line goes to stdout


if __name__ == "__main__":
    main()
