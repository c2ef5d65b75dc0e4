"""The files of a model that a bundle brings, for people to read before they run them."""

from __future__ import annotations

from pathlib import Path

from tidewarp.cli.files import write_new
from tidewarp.codec.artifacts import TAG_MODEL
from tidewarp.errors import NotFound
from tidewarp.federation.bundle import Bundle

__all__ = ["save_model"]


def save_model(bundle: Bundle, folder: Path) -> None:
    """Write the files of the model that ``bundle`` is about to the new ``folder``.

    Raises:
        NotFound: it is about no model, or brings no files. CodecError: they are not those of the model.
        FileExistsError: the folder is there.
    """
    from tidewarp.twin.replaying import ModelDescriptor, model_files

    described = [bundle.read(ref) for ref in bundle.computation().manifest.inputs]
    models = [ModelDescriptor.from_bytes(one.payload) for one in described if one.tag == TAG_MODEL]
    if not models:
        raise NotFound(f"receipt {bundle.receipt.hex()}", "no model is among its inputs", "leave --model-files out")
    contents = model_files(models[0], bundle.read(models[0].files).payload)
    folder.mkdir()
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, [content])
