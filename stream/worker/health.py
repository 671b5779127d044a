"""Readiness of a worker: set by its thread, read by the status server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Health:
    """What readiness is made of; written by the worker's thread, read by any."""

    warmed: bool = False
    joined: bool = False  # assigned, or standing by with nothing assigned
    broker: bool = False
    store: bool = False
    draining: bool = False

    @property
    def ready(self) -> bool:
        """Return whether this worker can take work now."""
        return all(self.parts().values())

    def parts(self) -> dict[str, bool]:
        """Each condition by name, for the body of /readyz."""
        return {
            "model_warmed": self.warmed,
            "joined_group": self.joined,
            "broker_reachable": self.broker,
            "store_reachable": self.store,
            "not_draining": not self.draining,
        }
