"""PCGNet: persona graph, cross-task graph, emotion shift; causal, with an exact incremental step.

May import training and what lies below; never `model.hrg_ssa`.
Begin with `model` (whole conversations), then `step` (one utterance at a time) and `predictor`.
"""
