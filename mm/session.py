"""Assembles everything: the nursery tree and nothing else."""
