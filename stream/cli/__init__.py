"""The commands, one file each: parse arguments, call the work, print its results.

May import every room; each command imports what it needs when it runs.
Begin with `serve`, or with `options` for shared arguments.
"""
