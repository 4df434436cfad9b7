"""`python -m geoseg.testing FOLDER [--seed N]`: write the sample scene."""

import argparse
from pathlib import Path

from geoseg.testing.sample import SAMPLE_SEED, write_sample


def main() -> None:
    """Parse the command line, write the sample, print the paths."""
    parser = argparse.ArgumentParser(
        prog="python -m geoseg.testing", description="Write a painted scene with its true footprints."
    )
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument(
        "--seed", type=int, default=SAMPLE_SEED, help="which scene (default: the committed sample's, %(default)s)"
    )
    options = parser.parse_args()
    for path in write_sample(options.folder, seed=options.seed):
        print(path)  # noqa: T201 - the result of a command line goes to stdout


if __name__ == "__main__":
    main()
