"""Which engine runs a model under which options."""

from __future__ import annotations

from tidewarp.kernel.contract import Kernel
from tidewarp.kernel.model import Model
from tidewarp.kernel.options import Options
from tidewarp.kernel.records import Image
from tidewarp.kernel.sequential import SequentialKernel
from tidewarp.kernel.trace import Ledger

__all__ = ["open_kernel"]


def open_kernel(model: Model, image: Image, ledger: Ledger, options: Options) -> Kernel:
    """The engine that ``options`` names, in the state of ``image``."""
    if options.kernel == "conservative":
        from tidewarp.kernel.conservative import ConservativeKernel

        return ConservativeKernel(model, image, ledger, options)
    return SequentialKernel(model, image, ledger)
