"""Reports that the tests of this folder share."""

from datetime import UTC, datetime

from idl_audit.report.schema import (
    Adversarial,
    AgreementCheck,
    BlockBounds,
    BlockInfo,
    Cardinality,
    ClassMargin,
    CleanAccuracy,
    Compression,
    Conversion,
    DataInfo,
    Diagnostic,
    Drift,
    Environment,
    EpsPoint,
    EpsSummary,
    Gate,
    InputGroups,
    InputMap,
    LocalSensitivity,
    ModelInfo,
    NewlyFalsified,
    NonzeroChange,
    Nonzeros,
    ObjectiveReport,
    Prediction,
    PreprocessingInfo,
    PropertyReport,
    Reason,
    Report,
    Rescaling,
    RuleResult,
    SampleReport,
    SampleResult,
    Sensitivity,
    SmallestScalar,
    Summary,
    ThreatModel,
    Timing,
    Tool,
    TopGroup,
    TopInput,
    Verdict,
    Verification,
    WellPosed,
)

ATTACK = Adversarial(
    class_=3,
    linf=0.03,
    l0=784,
    margin=-0.25,
    confirmed_by=("onnxruntime", "onnx2torch"),
    survives_8bit=True,
    key="adv_1",
)


def model(path="models/mnist.onnx", **changes):
    fields = {
        "path": path,
        "format": "onnx",
        "sha256": "ab" * 32,
        "input_shape": (1, 1, 28, 28),
        "n_outputs": 10,
        "n_parameters": 33010,
        "opset": 20,
        "producer": "pytorch 2.13",
        "ops": {"Gemm": 2, "Relu": 1},
    }
    return ModelInfo(**(fields | changes))


def conversion(**changes):
    fields = {
        "n_states": 40,
        "n_inputs": 784,
        "n_outputs": 10,
        "nnz": Nonzeros(A=0, B=31360, C=400, D=0),
        "blocks": (BlockInfo(name="/net/relu", op="Gemm", activation="relu", shape=(40,), size=40),),
        "structure": "strictly block triangular",
        "well_posed": WellPosed(proof="strictly block triangular", value=0.0),
        "norm_inf_A": Rescaling(before=3.5, after=0.5, kappa=0.5),
        "check": AgreementCheck(n=20, reference="onnxruntime 1.31", max_rel_error=3e-7, argmax_agreement=20),
        "seconds": 0.8,
        "peak_mb": 210.0,
    }
    return Conversion(**(fields | changes))


def sample(index, *verdicts, eps=(0.03,)):
    made = {
        Verdict.CERTIFIED: {"lower_bound": 0.5, "method": "linear"},
        Verdict.FALSIFIED: {"adversarial": ATTACK, "method": "pgd"},
        Verdict.UNKNOWN: {"reason": Reason.RELAXATION_GAP, "lower_bound": -0.1},
        Verdict.CLEAN_WRONG: {},
    }
    results = tuple(
        SampleResult(eps=value, verdict=verdict, seconds=0.1, **made[verdict])
        for value, verdict in zip(eps, verdicts, strict=True)
    )
    return SampleReport(index=index, label=7, predicted=7, results=results)


def report(command="certify", **sections):
    return Report(
        tool=Tool(version="0.1.0"),
        command=command,
        created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        status=sections.pop("status", "complete"),
        environment=Environment(python="3.11.9", platform="Linux x86_64", versions={"numpy": "2.4"}, threads=2, seed=0),
        **sections,
    )


def threat(*values, **changes):
    return ThreatModel(set="box", eps=tuple(EpsPoint(value=value, text=f"{value:g}") for value in values), **changes)


def certify(**changes):
    """100 images at eps 0.03: 71 certified, 12 falsified, 14 unknown, 3 clean wrong."""
    verdicts = [Verdict.CERTIFIED] * 71 + [Verdict.FALSIFIED] * 12 + [Verdict.UNKNOWN] * 14 + [Verdict.CLEAN_WRONG] * 3
    per_eps = EpsSummary(eps=0.03, n=100, clean_wrong=3, certified=71, falsified=12, unknown=14)
    sections = {
        "model": model(),
        "conversion": conversion(),
        "threat_model": threat(0.03, clip=(0.0, 1.0)),
        "summary": Summary(clean=CleanAccuracy(k=97, n=100), per_eps=(per_eps,)),
        "samples": tuple(sample(index, verdict) for index, verdict in enumerate(verdicts)),
    }
    return report(**(sections | changes))


def certify_range():
    """Two samples at two radii."""
    counts = [
        EpsSummary(eps=0.01, n=2, clean_wrong=0, certified=2, falsified=0, unknown=0),
        EpsSummary(eps=0.02, n=2, clean_wrong=0, certified=1, falsified=1, unknown=0),
    ]
    samples = (
        sample(4, Verdict.CERTIFIED, Verdict.CERTIFIED, eps=(0.01, 0.02)),
        sample(9, Verdict.CERTIFIED, Verdict.FALSIFIED, eps=(0.01, 0.02)),
    )
    return certify(threat_model=threat(0.01, 0.02), summary=Summary(per_eps=tuple(counts)), samples=samples)


def sensitivity(**changes):
    fields = {
        "kind": "global",
        "method": "paper",
        "norm_inf": 12.34567,
        "rho_norm_bound": 1234.5,
        "row_sums": (12.34567, 3.0),
        "top_inputs": (TopInput(output=0, input=345, value=1.1), TopInput(output=0, input=12, value=2.5)),
        "independent_pairs": 17,
    }
    return Sensitivity(**(fields | changes))


def local_sensitivity(**changes):
    """Two samples at eps 0.02, with everything that can be asked for."""
    tops = (TopInput(output=0, input=345, value=1.1), TopInput(output=0, input=12, value=2.5))
    fields = {
        "kind": "local",
        "method": "best of paper and centre-radius",
        "norm_inf": 12.345,
        "spectral_inf": 20.0,
        "smallest": SmallestScalar(name="norm_inf", value=12.345),
        "global_norm_inf": 123.45,
        "state_bounds": "interval",
        "margins": (ClassMargin(label=1, rival=0, row_sum=10.0, sum_of_rows=15.345, top_inputs=tops),),
        "cardinality": Cardinality(k=3, sigma=0.02, bounds=(0.5, 0.25)),
        "groups": InputGroups(
            source="rows",
            names=("row 0", "row 1"),
            top=(TopGroup(output=0, group="row 0", value=1.0), TopGroup(output=0, group="row 1", value=4.0)),
        ),
        "input_map": InputMap(height=1, width=2, values=(1.0, 2.0)),
        "samples": (
            LocalSensitivity(index=4, norm_inf=6.1725, row_sums=(6.1725, 1.0)),
            LocalSensitivity(index=9, norm_inf=12.345, row_sums=(12.345, 3.0)),
        ),
        "images": ("out/sensitivity-class-0.png",),
    }
    return sensitivity(**(fields | changes))


def everything():
    """A report with every section filled."""
    return certify(
        status="incomplete",
        data=DataInfo(
            source="mnist.npz",
            sha256="cd" * 32,
            n=100,
            indices=tuple(range(100)),
            preprocessing=PreprocessingInfo(scale=1 / 255, mean=(0.1307,), std=(0.3081,)),
            bounds=(0.0, 1.0),
        ),
        sensitivity=local_sensitivity(),
        bounds=(BlockBounds(block="relu", eps=0.03, mean_width=0.1, max_width=0.4, dead=1, active=2, unstable=37),),
        objectives=(
            ObjectiveReport(
                index=5,
                eps=0.03,
                objective="state",
                sense="largest",
                at_sample=0.0,
                reached=2.345,
                proved=2.5,
                method="lp",
            ),
            ObjectiveReport(
                index=6, eps=0.03, objective="state", sense="largest", at_sample=0.0, reached=None, reason="time_limit"
            ),
            ObjectiveReport(
                index=7, eps=0.03, objective="state", sense="largest", at_sample=0.0, reached=7.125, method="pgd"
            ),
        ),
        verification=Verification(file="w.npz", accepted=False, checked=4, refused=("claim 2: bound is too large",)),
        compression=Compression(
            kind="prune", nonzeros=NonzeroChange(before=100, after=40), drift=Drift(guaranteed=0.2, measured=0.01)
        ),
        properties=(PropertyReport(onnx="a.onnx", vnnlib="b.vnnlib", result="unsat", truth="unsat", seconds=1.5),),
        predictions=(Prediction(index=0, output=(0.1, 0.9), iterations=3, residual=1e-12),),
        gate=Gate(
            passed=False,
            rules=(RuleResult(rule="certified_accuracy@0.03 >= 0.9", passed=False, found="0.71", k=71, n=100),),
            newly_falsified=(NewlyFalsified(index=81, eps=0.03, before=Verdict.CERTIFIED),),
        ),
        diagnostics=(
            Diagnostic(code="IDL101", level="warning", message="Clean accuracy is poor", hint="try --scale 1/255"),
        ),
        artifacts=("adv.npz",),
        timing=Timing(total=12.5, steps={"attack": 5.0}),
    )
