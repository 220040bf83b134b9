"""The pipeline: one module per DVC stage, and shared modules."""

import signal
import sys
import zoneinfo

zoneinfo.reset_tzpath(to=())  # time zones come from the locked tzdata package, never from the operating system

if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # `python -m stages.train`: its imports take seconds, and Ctrl-C then has to end it without a traceback.
    # `errors.run` restores Python's handler.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
