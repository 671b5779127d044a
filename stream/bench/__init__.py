"""The benchmarks of speed and size behind `emotrack bench`.

May import every room but cli.
Begin with `rows` (one measured figure) and `pipeline`. `sizing`: what `emotrack capacity` computes.
"""
