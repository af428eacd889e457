"""Compiles the modules in which a bee spends its time, for who asks for it; see README.

`BEEMESH_COMPILE=1 pip install --no-build-isolation .` needs mypy and a C compiler. Without the
variable, and wherever what was compiled does not fit the interpreter, the same files run as Python.
"""

import os

from setuptools import Extension, setup

COMPILED = [
    "bee/btree.py",
    "bee/cache.py",
    "bee/changes.py",
    "bee/descent.py",
    "bee/lone_put.py",
    "bee/messages.py",
    "bee/neighbors.py",
    "bee/node_reader.py",
    "bee/protobuf.py",
    "bee/tree.py",
    "hypercore/encoding.py",
    "hypercore/flat_tree.py",
    "hypercore/log.py",
    "hypercore/merkle.py",
]


def extensions() -> list[Extension]:
    if os.environ.get("BEEMESH_COMPILE") != "1":
        return []
    from mypyc.build import mypycify

    # What these import is looked at, too, and where that needs a library it may be missing here.
    options = ["--config-file=", "--ignore-missing-imports", "--hide-error-context"]
    level = os.environ.get("BEEMESH_COMPILE_LEVEL", "3")
    return mypycify([*options, *COMPILED], opt_level=level, debug_level="0")


setup(ext_modules=extensions())
