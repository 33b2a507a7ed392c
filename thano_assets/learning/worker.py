"""One of the processes of a training, started by torch's launcher (see :mod:`.launch`)."""

import sys
from pathlib import Path

import torch

from .launch import work

if __name__ == "__main__":
    work(Path(sys.argv[1]))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
