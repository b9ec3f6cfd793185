"""`python -m drycc` is `dryccd`."""

from drycc.cli import main

if __name__ == "__main__":
    main()
