"""``%load_ext thanosql`` in a notebook, as ThanoSQL's tutorials have it, without its own client.

That client is a package of this name; where that is installed, it is what Python imports.
"""

from thano_assets import load_ipython_extension, unload_ipython_extension

__all__ = ["load_ipython_extension", "unload_ipython_extension"]
