"""`python -m mgen`."""

from mgen.cli.app import run

if __name__ == "__main__":
    run()
