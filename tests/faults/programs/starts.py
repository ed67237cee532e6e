"""What every start of a Python program takes: a script, a look into a directory and an import from there, a lock."""

import _thread
import importlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
with _thread.allocate_lock():
    importlib.import_module("refuse")
