"""Benchmarks. Each prints its peer in the same run; none of them is a test."""
