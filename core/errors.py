"""Errors that a person can cause and cure.

Each message is one line that names the thing, the cause and the cure. Every class also inherits
the builtin that a library caller would catch. `exit_code` is what the command line returns.
"""

from __future__ import annotations


class MgenError(Exception):
    """Base of all errors that mgen raises on purpose."""

    exit_code = 1


class UsageError(MgenError, ValueError):
    """The request itself makes no sense: an unknown name, a range that does not exist."""

    exit_code = 2


class InputNotFoundError(MgenError, FileNotFoundError):
    """A file or folder that was named is not there."""

    def __str__(self) -> str:  # OSError would print its errno tuple
        return str(self.args[0]) if self.args else "not found"


class InputError(MgenError, ValueError):
    """A file is there but cannot be used: empty, silent, truncated, not what its name says."""


class AudioError(InputError):
    """Audio that cannot be read, or that is too short, silent or broken for the job."""


class StoreError(MgenError, ValueError):
    """A store that is damaged, foreign, newer than this version, or lacks a layer."""


class StaleError(StoreError):
    """A layer whose parent has changed since it was made."""


class MapError(InputError):
    """A beat map that cannot be read."""


class OutputExistsError(MgenError, FileExistsError):
    """The output is already there and `--force` was not given."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "exists"


class MissingDependencyError(MgenError, ImportError):
    """An optional package or program is needed for this; the message says how to get it."""
