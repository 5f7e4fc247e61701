"""Where the embedded exchange's markets come from: a generated NHL slate, or the books of a recording."""
