# %% [markdown]
# # Ask a model
#
# No Kafka, no Redis: conversations in, answers out. Open this file as a notebook (VS Code,
# Jupytext, PyCharm) or run it: `python examples/ask_a_model.py`. `docs/your-data.md` trains a
# model of your own to put in its place.

# %%
import csv
from pathlib import Path

from stream.offline import State, load, rows

# %% [markdown]
# A model by name, or the folder of your own: `load("runs/calls")`.

# %%
model = load("pcgnet")
print(model)
print("vectors it reads:", dict(model.info.inputs))

# %% [markdown]
# ## One conversation

# %%
order = [
    {"speaker": "ann", "text": "Hello, where is my order? I have waited for two weeks!"},
    {"speaker": "ben", "text": "I am so sorry. Let me look."},
    {"speaker": "ann", "text": "This is outrageous, I am really angry."},
    {"speaker": "ben", "text": "It arrives today, and you get your money back."},
    {"speaker": "ann", "text": "Oh, how lovely! Thank you so much!"},
    {"speaker": "ann", "text": "Muchas gracias, son ustedes muy amables."},
]
answers = model.predict(order)
for said, answer in zip(order, answers, strict=True):
    emotion = f"({answer.reason})" if answer.abstained else answer.emotion
    moved = "" if answer.shift is None else f"  shift {answer.shift.probability:.2f}"
    alert = "  ALERT" if answer.alert else ""
    print(
        f"{said['speaker']}: {said['text']:56} {emotion:10} {answer.confidence:.2f}{moved}{alert}"
    )

# %% [markdown]
# ## As it is spoken
#
# The state is a value of yours: keep one for each conversation, copy it, try two ways to go on.

# %%
state: State = None
for utterance in order[:3]:
    state, answer = model.step(state, utterance)
for ending in ("Forget it. I give up.", "Wonderful, that is great news!"):
    _, answer = model.step(state, {"speaker": "ann", "text": ending})
    shift = answer.shift.probability if answer.shift else 0.0
    print(f"{ending:34} {answer.emotion:10} shift {shift:.2f}")

# %% [markdown]
# ## A table of many
#
# `pandas.DataFrame(table)` or `pyarrow.Table.from_pylist(table)` takes these rows as they are.

# %%
talks = {"order": order, "lunch": [{"speaker": "cy", "text": "What a boring lunch."}]}
table = rows(answer for talk in model.predict_many(talks) for answer in talk)
assert table[0]["p_" + table[0]["emotion"]] == table[0]["confidence"]

out = Path("answers.csv")
with out.open("w", encoding="utf-8", newline="") as file:
    writer = csv.DictWriter(file, list(table[0]))
    writer.writeheader()
    writer.writerows(table)
print(f"{len(table)} answers in {out}")
