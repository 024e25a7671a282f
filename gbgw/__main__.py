"""`python -m gbgw`, and the `gbgw` command."""

from gbgw.cli import main

if __name__ == "__main__":
    main()
