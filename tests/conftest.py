"""Settings of all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# A shared machine is no clock; and a test that must find its case finds it within 40.
settings.register_profile("default", deadline=None, max_examples=40)
settings.load_profile("default")
os.environ["WANDB_MODE"] = "offline"
