"""Speed and size, measured: what `emotrack bench` prints.

May import every room but cli.
Begin with `rows` (one measured figure) and `pipeline`.
"""
