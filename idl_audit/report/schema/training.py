"""An implicit model that was made from data."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from idl_audit.report.schema.base import Count, NonNegative, Part, Positive, Seconds, Text


class Fit(Part):
    """How well a model says what samples have."""

    n: Count = Field(description="Samples.")
    right: Count | None = Field(default=None, description="Those whose class is the label; null for numbers.")
    rmse: NonNegative | None = Field(
        default=None, description="Root of the mean squared error over samples and outputs; null for classes."
    )
    r2: float | None = Field(
        default=None, description="1 - squared error / squared deviation of the targets; null for classes."
    )


class Training(Part):
    """The training of an implicit model x = relu(A x + B u + b), y = C x + D u + d."""

    solver: Text = Field(description="gradient, bcd or frank-wolfe.")
    loss: Text = Field(description="squared or cross-entropy.")
    penalties: dict[Text, NonNegative] = Field(description="Weights of penalties beside the mean loss.")
    states: Count = Field(description="n.")
    structure: Text = Field(description="free, or feed-forward with the states of each layer.")
    kappa: Positive | None = Field(
        default=None, description="||A||_inf <= kappa, or (A + A^T) / 2 <= kappa I; null where layers need no norm."
    )
    well_posed: Text = Field(default="norm", description="What makes the state unique: norm, monotone or layers.")
    norm_inf_A: NonNegative = Field(description="||A||_inf of the model that was written.")
    units: Literal["each", "one"] = Field(
        description="Whether every input was trained in units of its own deviation, or all in one; folded into B, b, D."
    )
    eps: Positive | None = Field(default=None, description="The radius trained for, in data units.")
    minutes: Positive = Field(description="Minutes of one core that training was counted for, at most.")
    seconds: Seconds = Field(description="Processor time that training took.")
    steps: Count = Field(description="Batches, or turns of all blocks.")
    train: Fit = Field(description="On the samples that were trained on.")
    holdout: Fit = Field(description="On samples that were not.")
    select: Count | None = Field(default=None, description="How many inputs were to act; null where all may.")
    shift: Count | None = Field(default=None, description="Pixels by which images were moved at most; null: none.")
    kept_inputs: tuple[Count, ...] = Field(
        default=(), description="Inputs that act, the strongest first, where --select or columns made others zero."
    )
    column_norms: tuple[NonNegative, ...] = Field(
        default=(), description="Norm of each column of (B; D) in the units of training; empty as above."
    )
