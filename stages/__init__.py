"""What happens to the data: Arrow batch in, Arrow batch out; one file an idea.

No cluster, no spec file, no corpus layout is known here; settings are pydantic models beside the stage they set.
"""
