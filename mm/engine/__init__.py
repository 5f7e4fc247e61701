"""Pure decisions: state in, commands out. It is told the time and draws no random numbers."""
