"""The tables of a configuration as pydantic models: every key is the name of an option without its dashes."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, field_validator, model_validator

STEPS: Final = ("sensitivity", "bounds", "certify", "attack")
"""What `run` can do, in the order it is done in: verdicts, the slowest, come last and can be resumed."""


def _as_text(value: object) -> object:
    """Return what would be typed for a number or a list on the command line."""
    if isinstance(value, list):
        return ",".join(str(_as_text(entry)) for entry in value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a finite number is needed")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    if not isinstance(value, str):
        raise ValueError("text, a number or a list of them is needed")
    return value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Text: TypeAlias = Annotated[str, BeforeValidator(_as_text, json_schema_input_type=str | float | list[str | float])]
"""`"1/255,2/255"`, `0.03`, or a list of such."""
Name: TypeAlias = Annotated[str, Strict()]
File: TypeAlias = Annotated[str, Strict(), Field(min_length=1, json_schema_extra={"format": "path"})]
"""A file or folder; a relative name starts at the configuration's folder."""
Number: TypeAlias = Annotated[int, Strict()]
Seconds: TypeAlias = Annotated[float, Strict(), Field(gt=0)]
Texts: TypeAlias = Annotated[
    tuple[Annotated[str, Strict()], ...], BeforeValidator(_as_list, json_schema_input_type=str | list[str])
]


def _key(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


class Table(BaseModel):
    """A table of the file: no unknown keys; what is left out is None."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=_key)

    def given(self) -> dict[str, Any]:
        """Return what the file says, by key."""
        return self.model_dump(by_alias=True, exclude_none=True)


class Defaults(Table):
    """Options that several commands have."""

    model: File | None = Field(default=None, description="The model file.")
    data: File | None = Field(default=None, description="The samples.")
    labels: File | None = Field(default=None, description="Labels, where the data file has none.")
    limit: Number | None = Field(default=None, description="Only the first so many samples.")
    index: Text | None = Field(default=None, description="Only these samples: 0,3,10-19.")
    layout: Name | None = Field(default=None, description="Order of the data's axes: native, nchw, nhwc or flat.")
    scale: Text | None = Field(default=None, description="The network reads (data * scale - mean) / std.")
    mean: Text | None = Field(default=None, description="One number, or one a channel.")
    std: Text | None = Field(default=None, description="One number, or one a channel.")
    bounds: Text | None = Field(default=None, description="Valid range of the data: 0,1.")
    eps: Text | None = Field(default=None, description="Radii in data units: 8/255, 0.03, a list, or start:stop:count.")
    output_name: Name | None = Field(default=None, description="Which output to audit, where there are several.")
    threshold: Text | None = Field(default=None, description="Of one output: class 1 is where it is above this number.")
    arch: Name | None = Field(default=None, description="For PyTorch weights: MODULE:FACTORY.")
    input_shape: Text | None = Field(default=None, description="For PyTorch files: the shape of one input.")
    max_memory: Text | None = Field(default=None, description="Refuse what needs a larger matrix: 1GB.")
    seed: Number | None = Field(default=None, description="Seed of every random choice.")
    time_limit: Seconds | None = Field(default=None, description="Seconds for one sample at one radius.")
    max_nodes: Number | None = Field(default=None, description="Leaves, parts of boxes and linear programs, at most.")
    jobs: Number | None = Field(default=None, description="Processes that decide samples.")


class Certify(Table):
    """Options of certify."""

    method: Text | None = Field(default=None, description="Which methods to use.")
    sigma: File | None = Field(default=None, description="File of per-input radii, multiplied by eps.")
    save: File | None = Field(default=None, description="File for the adversarial inputs.")
    certificates: File | None = Field(default=None, description="Folder for what proves each certified sample.")


class Attack(Table):
    """Options of attack."""

    method: Text | None = Field(default=None, description="Which attacks to use.")
    fraction: Text | None = Field(
        default=None, description="Share of the inputs that sensitivity and gradient may change."
    )
    target: Number | None = Field(default=None, description="Only this class counts.")
    sparse: Number | None = Field(default=None, description="At most so many inputs change.")
    sigma: File | None = Field(default=None, description="File of per-input radii, multiplied by eps.")
    save: File | None = Field(default=None, description="File for the adversarial inputs.")
    images: File | None = Field(default=None, description="Folder for pictures of the adversarial inputs.")
    image_shape: Text | None = Field(default=None, description="Shape of an input as an image: 28,28.")


class _FewChanges(Table):
    """A table in which `sparse` may also be called `cardinality`."""

    sparse: Number | None = Field(default=None, description="Bounds where at most so many inputs change.")
    cardinality: Number | None = Field(default=None, description="Another name of sparse; only one may be given.")

    @model_validator(mode="after")
    def _check_one_name(self) -> Self:
        if self.sparse is not None and self.cardinality is not None:
            raise ValueError("sparse and cardinality are two names of the same option: leave cardinality out")
        return self

    def given(self) -> dict[str, Any]:
        """Return what the file says, by key; what it calls cardinality is sparse."""
        found = super().given()
        if "cardinality" in found:
            found["sparse"] = found.pop("cardinality")
        return found


class Sensitivity(_FewChanges):
    """Options of sensitivity."""

    method: Name | None = Field(default=None, description="How to bound S.")
    eps: Text | None = Field(
        default=None, description="Within boxes of this radius around the samples, not for all inputs."
    )
    state_bounds: Name | None = Field(default=None, description="How states are bounded in a box: interval or linear.")
    top: Number | None = Field(default=None, description="Inputs to list for each output.")
    class_: Number | None = Field(default=None, description="Also bound the differences of this output to all others.")
    groups: Name | None = Field(
        default=None, description="Also sum S over groups: a file, rows, columns, channels, patches."
    )
    save: File | None = Field(default=None, description="File for S.")
    witness: File | None = Field(default=None, description="File for what `verify` checks S by.")
    images: File | None = Field(default=None, description="Folder for a picture of each output's row of S.")
    image_shape: Text | None = Field(default=None, description="Shape of an input as an image: 28,28.")


class Bounds(_FewChanges):
    """Options of bounds."""

    method: Text | None = Field(default=None, description="Which methods to use.")
    sigma: File | None = Field(default=None, description="File of per-input radii, multiplied by eps.")
    save: File | None = Field(default=None, description="File for all bounds.")


class Run(Table):
    """What `run` does and writes."""

    steps: Text | None = Field(default=None, description=f"Which of {', '.join(STEPS)} to do.")
    output: File | None = Field(default=None, description="File for the report (JSON).")
    reports: tuple[File, ...] | None = Field(
        default=None, description="Further files: .html, .md (Markdown), .xml (JUnit)."
    )


class Gate(Table):
    """Rules that `gate`, and `run` at its end, judge the report by."""

    require: Texts | None = Field(default=None, description="Rules that must hold: certified_accuracy@2/255 >= 0.90.")
    warn: Texts | None = Field(default=None, description="Rules that only warn.")
    baseline: File | None = Field(default=None, description="An earlier report that drop compares with.")

    @field_validator("require", "warn")
    @classmethod
    def _check_rules(cls, rules: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if rules is not None and any(not rule.strip() for rule in rules):
            raise ValueError("a rule is empty")
        return rules


class Settings(Table):
    """A whole configuration; every table may be left out."""

    defaults: Defaults = Field(default_factory=Defaults, description="Options that several commands have.")
    certify: Certify = Field(default_factory=Certify, description="Options of certify.")
    attack: Attack = Field(default_factory=Attack, description="Options of attack.")
    sensitivity: Sensitivity = Field(default_factory=Sensitivity, description="Options of sensitivity.")
    bounds: Bounds = Field(default_factory=Bounds, description="Options of bounds.")
    run: Run = Field(default_factory=Run, description="What `run` does and writes.")
    gate: Gate = Field(default_factory=Gate, description="Rules that `gate` and `run` judge the report by.")
