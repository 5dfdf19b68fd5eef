"""`python -m ksmbatch` is `ksmbatch`; the command line itself is in `cli`."""

from ksmbatch.cli import main

if __name__ == "__main__":
    main()
