"""The training libraries, told to be quiet in a log that others read."""

from __future__ import annotations

import logging
import os
import warnings

_ENVIRONMENT = {
    # A hub that does not answer is found out within seconds.
    "HF_HUB_ETAG_TIMEOUT": "5",
    "HF_HUB_DOWNLOAD_TIMEOUT": "15",
    # Nobody is told what is trained here.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # accelerate imports DeepSpeed wherever it is installed, which takes seconds and tells so.
    "DS_LOG_LEVEL": "error",
    # On a busy machine threads that spin at barriers cost more than they save: with one core taken
    # a step of the demo took several times as long.
    "OMP_WAIT_POLICY": "passive",
}

_NVIDIA_DEVICE = "/dev/nvidiactl"


def prepare_environment() -> None:
    """To be called before the libraries are imported: they read the environment once."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not os.path.exists(_NVIDIA_DEVICE):
        # DeepSpeed would look for every maker's accelerator, and warn that it found none.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def be_quiet() -> None:
    """No progress bars in the log, and no warnings about names that TRL still uses."""
    import datasets
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from transformers.utils import logging as transformers_logging

    datasets.disable_progress_bars()
    disable_progress_bars()
    transformers_logging.disable_progress_bar()
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings(
        # DeepSpeed 0.19 uses torch's older names of collectives, in each step.
        "ignore",
        message=r".*torch\.distributed\..* is deprecated",
        category=FutureWarning,
    )
    warnings.filterwarnings(
        "ignore", message=r".*is deprecated and will be removed in v6", category=FutureWarning
    )
