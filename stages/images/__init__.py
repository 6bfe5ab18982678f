"""Images: fetched bytes to stored bytes with their facts, and perceptual hashes."""
