"""`python -m ops.cli.quiet_dvc`: DVC without its hint to `git add` the files that it wrote, changed or not."""

import logging
import sys

from dvc.cli import main

if __name__ == "__main__":
    logging.getLogger("dvc.repo.scm_context").setLevel(logging.WARNING)
    sys.exit(main())
