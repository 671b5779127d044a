"""The console entry: every command, and the sentence printed when one cannot work.

Commands import what they need when they run, so that `--help` is quick and the client install
(no torch, no redis, no confluent-kafka) has its commands.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from stream.cli import (
    accuracy,
    baseline,
    bench,
    capacity,
    client,
    config,
    conversations,
    data,
    demo,
    dlq,
    doctor,
    evaluate,
    extract,
    local,
    predict,
    schema,
    serve,
    thresholds,
    topics,
    train,
    verify,
)
from stream.errors import EmotrackError
from stream.local.servers import ServerFailed, ServerMissing

INTERRUPTED: Final = 130
EXTRA_MISSING: Final = 2
EXTRA_OF: Final = {
    "parselmouth": "audio",
    "tensorboard": "tensorboard",
}  # whatever else is missing comes with the worker
ROOT: Final = Path(__file__).resolve().parents[1]
OUR_PACKAGES: Final = frozenset({"stream", "model", "state"})
app = typer.Typer(
    name="emotrack",
    help="Streaming real-time emotion tracker: utterances in, emotions and shift alerts out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
TRY, RUN, MODELS = "Try it", "Run it", "Models"
app.command(rich_help_panel=TRY)(demo.demo)
app.command(rich_help_panel=TRY)(local.local)
app.command(rich_help_panel=RUN)(serve.serve)
app.command(rich_help_panel=RUN)(verify.verify)
app.command()(client.publish)
app.command()(client.watch)
app.command()(doctor.doctor)
app.command(rich_help_panel=RUN)(capacity.capacity)
app.add_typer(topics.topics_app, name="topics", no_args_is_help=True)
app.add_typer(schema.schema_app, name="schema", no_args_is_help=True)
app.add_typer(config.config_app, name="config", no_args_is_help=True)
app.add_typer(dlq.app, name="dlq", no_args_is_help=True, rich_help_panel=RUN)
app.add_typer(conversations.app, name="conversations", no_args_is_help=True, rich_help_panel=RUN)
app.add_typer(train.app, name="train", rich_help_panel=MODELS)
app.command(rich_help_panel=MODELS)(evaluate.evaluate)
app.command(rich_help_panel=MODELS)(predict.predict)
app.command(rich_help_panel=MODELS)(thresholds.thresholds)
app.command(rich_help_panel=MODELS)(accuracy.accuracy)
app.command(rich_help_panel=MODELS)(baseline.baseline)
app.add_typer(data.app, name="data", no_args_is_help=True, rich_help_panel=MODELS)
app.add_typer(extract.app, name="extract", no_args_is_help=True, rich_help_panel=MODELS)
app.add_typer(bench.app, name="bench", rich_help_panel=MODELS)


def show_version(wanted: bool) -> None:
    """Print the version and exit."""
    if wanted:
        print(f"emotrack {version('emotrack')}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="print the version"),
    ] = False,
) -> None:
    """Streaming real-time emotion tracker: utterances in, emotions and shift alerts out."""


def main() -> None:
    """Run the console; a fault is one sentence on stderr and an exit code, never a traceback."""
    # torch warns callers of torch.jit; torch_geometric is one when it is imported.
    warnings.filterwarnings("ignore", r"`torch\.jit\.", FutureWarning)
    try:
        app()
    except EmotrackError as error:
        end(error.exit_code, str(error))
    except (ServerMissing, ServerFailed) as error:
        end(1, str(error))
    except OSError as error:
        if error.filename is None:
            end(1, unknown(error))
        end(1, f"{error.filename}: {error.strerror}; name another file or folder")
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.partition(".")[0] in OUR_PACKAGES:
            end(1, unknown(error))
        end(
            EXTRA_MISSING,
            f"this command needs {missing}, which this install does not bring: "
            f"pip install 'emotrack[{EXTRA_OF.get(missing, 'worker')}]'",
        )
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:  # a fault of ours: one line that says where, for a report
        end(1, unknown(error))


def unknown(error: BaseException) -> str:
    """Return a sentence about a fault that no one has foreseen, with the way to it in our files."""
    frames = [
        f"{Path(frame.filename).relative_to(ROOT)}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(ROOT)
        and Path(frame.filename).relative_to(ROOT).parts[0] in OUR_PACKAGES
    ]
    said = " ".join(str(error).split()) or "no more is known"
    way = " < ".join(reversed(frames)) or "outside emotrack"
    return (
        f"{type(error).__name__}: {said}. emotrack does not know this fault: please report this "
        f"line (in {way})"
    )


def end(code: int, sentence: str) -> NoReturn:
    """Exit with `code`, and `sentence` on stderr."""
    text = Text.assemble(("error:", "bold red"), " ", sentence)
    Console(stderr=True, highlight=False, soft_wrap=True).print(text)
    sys.exit(code)


if __name__ == "__main__":
    main()
