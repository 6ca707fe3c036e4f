"""GRAPH -> IMPLICIT MODEL: x = phi(A x + B u + b), y = C x + D u + d."""
