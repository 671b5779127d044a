"""Training that models share. Begin with `loop`. Never imports a model."""
