"""What learns from the shards: data, model, objective, step, checkpoint, evaluation.

`python -m trainer.run --config recipes/demo.yaml` is the one command; nothing here reads stages/ or pipeline/.
"""
