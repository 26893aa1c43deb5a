"""`python -m rectilinear` is the command."""

from rectilinear.cli.main import main

if __name__ == "__main__":
    main()
