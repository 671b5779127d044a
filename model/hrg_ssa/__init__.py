"""HRG-SSA: hybrid relational graphs, a T5 decoder, sentiment-laden alignment; causal.

May import training and what lies below; never `model.pcgnet`.
Read `model` first, then `predictor`.
"""
