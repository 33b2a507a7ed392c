"""Pre-trained weights that installed Python packages carry: what answers where no hub can be reached."""

from .e5 import MultilingualE5
from .encoder import PackagedEncoder
from .minilm import MiniLM

__all__ = ["E5", "MINILM", "PackagedEncoder"]

MINILM = MiniLM()
E5 = MultilingualE5()
