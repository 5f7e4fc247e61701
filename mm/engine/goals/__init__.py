"""The goal guard: sees a goal on the tape or on the scoreboard, and says what to do with all quotes of that game.

`sport` has the parameters of a sport and the regimes of its games, `tape` one market's recent past, `guard` the game's
state machine. Pure: told the time, answers with a verdict. Who holds and pulls quotes is the shell.
"""
