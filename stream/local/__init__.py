"""Servers, worker processes and the demo on this machine's loopback.

May import every room but bench and cli.
Begin with `servers`, then `demo`.
"""
