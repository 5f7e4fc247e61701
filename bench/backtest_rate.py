"""Rows of a made-up tape a CPU second through the back-test, live engine and queue model. Started by `bench/run.py`.

python bench/backtest_rate.py 200000
"""

import logging
import sys
import time
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from mm.research.loop import Backtest, BacktestOptions
from tapes import wandering_tape

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
tape = wandering_tape(1, events=int(sys.argv[1]))
run = Backtest(tape, BacktestOptions())
began = time.process_time()
run.run()
print(len(tape) / (time.process_time() - began))
