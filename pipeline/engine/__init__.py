"""The engine: phases as data, the runner, tables, row stores, keys, storage, the cluster. It knows no phase by name."""
