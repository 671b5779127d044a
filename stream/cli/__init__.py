"""One file a command: arguments in, work called, results printed.

May import every room; each command imports what it needs when it runs.
Begin with `serve`, or with `options` for shared arguments.
"""
