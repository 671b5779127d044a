"""Ask a model in this process: no Kafka, no Redis. docs/your-data.md shows it.

May import answers and events. Begin with `loaded`.

    from stream.offline import load

    model = load("pcgnet")  # or "hrg-ssa", or the folder of a checkpoint
    for answer in model.predict([{"speaker": "ann", "text": "You did what?!"}]):
        print(answer.speaker_id, answer.emotion, answer.confidence)

    state = None
    state, answer = model.step(state, {"speaker": "ben", "text": "I am so sorry."})
"""

from stream.events.answer_rows import rows
from stream.offline.answered import Answered
from stream.offline.loaded import LoadedModel, State, load
from stream.offline.spoken import Spoken

__all__ = ["Answered", "LoadedModel", "Spoken", "State", "load", "rows"]
