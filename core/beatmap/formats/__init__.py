"""File formats of Beat Saber levels, and the zip that carries one."""
