"""The trusted base: what a proof is, and what checks it. numpy and scipy only; no clock, no torch, no solver."""
