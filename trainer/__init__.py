"""What learns from the shards: data, model, objective, step, checkpoint, evaluation.

`python -m trainer.run --config recipes/demo.yaml` trains, `python -m trainer.generate` tries a model;
nothing here reads stages/ or pipeline/.
"""
