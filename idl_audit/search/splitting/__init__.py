"""Splitting the input box: proved bounds with their derivatives by width, and the parts of a box that are refuted."""
