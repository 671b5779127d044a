"""The light client: publish utterances, watch predictions and alerts. Brings no torch.

May import events, brokers' kafka-python files and `model.data`; begin with `publisher`.

    from stream.client import AlertSubscriber, Publisher, Utterance

    with Publisher("127.0.0.1:9092") as publisher:
        publisher.publish(Utterance("call-7", "u1", "anna", text="Where is my order?"))

    with AlertSubscriber("127.0.0.1:9092", timeout_s=30) as alerts:
        for alert in alerts:
            print(alert.speaker_id, alert.from_, "->", alert.to)
"""

from stream.client.publisher import Publisher
from stream.client.subscriber import AlertSubscriber, PredictionSubscriber, Received
from stream.events.answer_rows import rows
from stream.events.messages import PredictionEvent, ShiftAlert, Utterance

__all__ = [
    "AlertSubscriber",
    "PredictionEvent",
    "PredictionSubscriber",
    "Publisher",
    "Received",
    "ShiftAlert",
    "Utterance",
    "rows",
]
