"""A scan for readers of different kinds: one module for each format, each with `write(scan, ...) -> str`."""
