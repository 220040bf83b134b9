"""`python -m ops.cli`: the command line in containers and tests."""

from ops.cli import main

main()
