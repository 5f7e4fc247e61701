"""What one market saw and decided, kept so that it can be decided again: entries, and the player that repeats them."""
