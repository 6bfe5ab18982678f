"""Pictures: the one decoder for encoded image bytes, of the build and of the trainer; a leaf, like assets."""
