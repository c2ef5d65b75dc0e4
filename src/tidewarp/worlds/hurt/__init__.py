"""A model made to hurt: `model` is what is computed, `cases` draws it and how it is executed."""

from tidewarp.worlds.hurt.cases import Case, Late, Played, play, random_case, random_options
from tidewarp.worlds.hurt.model import CLASSES, Flake, Hurt, Ledgered, Mixer, Token, Walker, Wide, hurt

__all__ = [
    "CLASSES",
    "Case",
    "Flake",
    "Hurt",
    "Late",
    "Ledgered",
    "Mixer",
    "Played",
    "Token",
    "Walker",
    "Wide",
    "hurt",
    "play",
    "random_case",
    "random_options",
]
