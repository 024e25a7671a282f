"""One Python target under atheris, which counts the edges of gbgw's bytecode.

python -m tests.fuzz.python_target NAME [libFuzzer's options and folders]
"""

import sys

import atheris  # type: ignore[import-not-found]  # installed by `make fuzz`


def main(name: str) -> None:
    # The models stay as they are: an edge of theirs is none of the gateway's.
    with atheris.instrument_imports(include=["gbgw"]):
        from tests.fuzz.targets import check_of

        check = check_of(name)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1])
