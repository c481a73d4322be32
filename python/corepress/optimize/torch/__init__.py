"""Replacement for ``coremltools.optimize.torch``: change the import, keep the script.

::

    from corepress.optimize.torch.palettization import DKMPalettizer  # was: coremltools.optimize.torch.palettization

Classes, config fields, YAML files, life cycle (`prepare`, `step`, `finalize`; `compress`; `report`) and results are
coremltools'. Finalized models are plain PyTorch modules with the buffers that ``coremltools.convert`` reads, so it
turns them into compressed packages; they are saved and loaded as ordinary state dicts.
"""

from ...extras import load as _load

for _module in ("torch", "attrs", "cattrs"):
    _load("corepress.optimize.torch", _module)
