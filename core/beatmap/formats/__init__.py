"""File formats of Beat Saber levels, and the zip that carries one."""

from mgen.core.beatmap.formats.archive import FORMATS, check_output, read_map, write_map

__all__ = ["FORMATS", "check_output", "read_map", "write_map"]
