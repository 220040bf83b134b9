"""What a release needs around it: a registry of images, a proxy, and the end of both."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.release.docker import compose
from tests.support.processes import free_port, running
from tests.support.release import Release, docker
