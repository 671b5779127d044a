"""The console as a user types into it: in this process, or in one of its own."""

from __future__ import annotations

import subprocess
import sys

from typer.testing import CliRunner

from stream.main import app


def run(*arguments: str) -> str:
    """Run a command in this process and return its output; raise what it raises."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def emotrack(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the console in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "stream.main", *arguments],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
