"""The prediction service, as shipped in the image."""

import sys

from app import environment

if "--multiprocessing-fork" not in sys.orig_argv:  # a worker has the environment that its parent has made
    environment.settle()
