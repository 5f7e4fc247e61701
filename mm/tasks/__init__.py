"""Long-running trio tasks with one owner each, and the objects they share."""
