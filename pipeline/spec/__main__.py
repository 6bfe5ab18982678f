"""Look at specs: python -m pipeline.spec schema, python -m pipeline.spec show mmc4.yaml"""

from pipeline.command import run_command
from pipeline.spec.loading import app

if __name__ == "__main__":
    run_command(app)
