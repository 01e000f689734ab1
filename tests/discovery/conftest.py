"""Makes ``tests/netns.py`` importable, also when only this folder is run."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
