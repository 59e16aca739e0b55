"""Benchmarks of each part against a plain implementation."""
