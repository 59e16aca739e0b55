"""Drives the product from outside and counts what goes wrong; see README.md beside this file."""

import os

# Before numpy or torch is imported: libraries that begin threads at import could not be forked, and
# results depend in their last digits on the number of threads.
os.environ |= {f"{name}_NUM_THREADS": "1" for name in ("OMP", "NUMBA", "OPENBLAS", "MKL")}
os.environ |= {"WANDB_MODE": "offline", "CAMPAIGN_SECRET": "hunter2-must-not-be-printed"}
