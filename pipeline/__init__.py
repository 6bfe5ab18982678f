"""How a corpus is built: spec, plan, runner, stores, decisions, report. The only part that knows Ray Data."""

import os
import secrets
import sys

# Ray reads these when it is imported, so they are set before any module here imports it.
if "ray" not in sys.modules:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Its handler prints C++ frames for a SIGTERM, which is an order and no failure, and takes it from the build.
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
    # The first failure of a phase is handled and told; those of its other tasks would be printed as tracebacks.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    if "RAY_ADDRESS" not in os.environ and "RAY_AUTH_MODE" not in os.environ:
        # A local Ray gets a token of its own: others stay out, and none is written to ~/.ray, where it would turn
        # authentication on for every later `ray start` of this user.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
