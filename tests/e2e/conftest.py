"""The fixtures of tests/ops, for the tests that start whole systems."""

from tests.support.fixtures.registries import *  # noqa: F401,F403 # pylint: disable=wildcard-import,unused-wildcard-import
