"""How a corpus is built: spec, plan, runner, stores, decisions, report. The only part that knows Ray Data."""
