"""ComputeOps: scientific applications as reproducible, proven containers.

Read `computeops.pipeline` first: it holds the whole flow, recipe -> image -> evidence -> hub -> run.
"""

__version__ = "0.1.0"
