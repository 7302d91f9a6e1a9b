"""mgen finds the actions hidden in music and lets a person use them."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mgen")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+uninstalled"
