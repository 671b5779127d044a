"""`emotrack serve` that observes nothing: what `bench metrics` compares with.

Run as a child process; the page is there and stays empty.
"""

from __future__ import annotations

from stream import main, worker


class Silent:
    """Takes every fact of the loop and forgets it."""

    def __init__(self, *_unused: object) -> None:
        """Nothing is kept."""

    def __getattr__(self, _fact: str) -> object:
        return ignore


def ignore(*_unused: object, **_also_unused: object) -> None:
    """Do nothing."""


if __name__ == "__main__":
    setattr(worker, "Observer", Silent)  # noqa: B010 -- a checker would refuse it
    main.main()
