"""AnomalyNCD: find the defects in unlabelled images and sort them into kinds (CVPR 2025)."""
