"""What training shares between models: the loop, losses, saved progress, settings from a file.

May import scoring, serving, text and data; never a model.
Begin with `loop`.
"""
