"""Every diagnostic code on one screen: IDLnnn, what it means, and what to do about it. `explain` prints an entry.

1nn: samples, labels and units. 2nn: verdicts. 3nn: sensitivity and conversion. 4nn: bounds. 5nn: properties.
6nn: training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True)
class Code:
    """What a diagnostic code stands for."""

    title: str
    meaning: str
    advice: str


CODES: Final[Mapping[str, Code]] = MappingProxyType(
    {
        "IDL101": Code(
            "poor clean accuracy",
            "The network predicts few of the labels of the unchanged samples. Usually it does not read the data as it "
            "was trained to; verdicts would then be about numbers that it never sees.",
            "Where another reading of the data predicts more labels, the hint names the options with both counts; it "
            "is never applied for you. Otherwise give the preprocessing of the training: --scale, --mean, --std, "
            "--layout, and check that the labels count the classes from 0.",
        ),
        "IDL102": Code(
            "the range of the data is odd",
            "The samples look like bytes (whole numbers up to 255) and are read as they are, or they fill only a small "
            "part of the range that --bounds gives.",
            "Give --scale 1/255 where the network was trained on numbers from 0 to 1; eps and --bounds stay in the "
            "units of the data.",
        ),
        "IDL103": Code(
            "the number type may have cut the data",
            "The inputs are stored as whole numbers and are nothing but 0 and 1: numbers between 0 and 1 that were "
            "saved as integers look like this.",
            "Save the inputs as float32, unless they are truly binary.",
        ),
        "IDL104": Code(
            "constant samples",
            "All inputs of a sample are the same number, as in an empty image.",
            "Check how the samples were made; leave these out with --index.",
        ),
        "IDL105": Code(
            "repeated samples",
            "Some samples are equal, number by number; each is counted. Where their labels differ, no network can be "
            "right on all of them.",
            "Keep one of each, so that the counts speak of different samples.",
        ),
        "IDL106": Code(
            "outputs are probabilities",
            "The outputs are positive and sum to 1: a softmax is part of the network, and not its last operator. "
            "Margins are then differences of probabilities, which saturate.",
            "Export the network without its softmax; the ranking of the outputs stays the same.",
        ),
        "IDL107": Code(
            "eps is less than one grey level",
            "The samples are bytes from 0 to 255 and eps, which is in units of the data, is below 1.",
            "For 8/255 of the range write -e 8, or give the data as numbers from 0 to 1.",
        ),
        "IDL108": Code(
            "targets of a regression",
            "The network has one output, and what the file has in place of labels are not the two classes that it can "
            "stand for: they are left out, and no accuracy is counted.",
            "Where the output is compared with a number, give labels 0 and 1, and the number with --threshold.",
        ),
        "IDL109": Code(
            "the network reads whole numbers",
            "Its input is uint8 or another type of whole numbers, as of pictures. eps counts in these numbers; the set "
            "is the box of real numbers around the sample, rounded inward to whole numbers. certified holds "
            "for all of it, falsified is a whole number that the network itself misclassifies.",
            "Give the data as the network reads them, and eps likewise: 2 for two grey levels. Nothing is scaled.",
        ),
        "IDL111": Code(
            "one-hot labels", "The labels are rows with one entry for each class.", "Save labels.argmax(axis=1)."
        ),
        "IDL112": Code(
            "labels from 1", "The labels count the classes from 1, and the model's from 0.", "Subtract 1 from each."
        ),
        "IDL113": Code(
            "labels out of range",
            "A label names a class that the model does not have.",
            "Check that labels and model belong together.",
        ),
        "IDL114": Code(
            "eps covers the whole range",
            "The data lie within 0 and 1, and eps, which is in units of the data, is 1 or more.",
            "Write -e 8/255 for 8 of 255 grey levels.",
        ),
        "IDL115": Code(
            "samples do not fit the model",
            "A sample has another number of inputs than the model reads.",
            "Give samples of the shape that `inspect` shows.",
        ),
        "IDL116": Code(
            "NaN or infinity in the data",
            "An input of a sample is no finite number.",
            "Mend the file, or leave the sample out with --index.",
        ),
        "IDL201": Code(
            "a last softmax is left out",
            "The last operator changes no ranking of outputs; margins and bounds are those of its input.",
            "Nothing needs to be done.",
        ),
        "IDL202": Code(
            "margins within the rounding of float32",
            "A margin that is proved in exact arithmetic is not above what is proved of the rounding of inference: of "
            "every operator of the file in its own precision, added up in any order, fused and folded or not, over the "
            "whole set; errors of exp, tanh and the like are measured ones, doubled. Without it, no float32 input of "
            "the set is misclassified by such a runtime. TF32 (torch's default for convolutions on CUDA: switch it off "
            "by torch.backends.cudnn.allow_tf32 = False), accumulators of 16 bits, Winograd convolutions and "
            "integer kernels are not covered. It is also told where no bound is known of an operator, and named.",
            "The proof holds for the weights in the file in exact arithmetic; a device may still compute the other "
            "class somewhere in the set. --arithmetic float32 proves verdicts with this bound, or finds such inputs. A "
            "smaller eps has larger margins; a proof by splitting ends as soon as a margin is positive.",
        ),
        "IDL203": Code(
            "a targeted attack",
            "With --target only that class counts as success, and samples of the class are left out.",
            "Leave --target out for any class.",
        ),
        "IDL204": Code(
            "sparse sets around float32 numbers",
            "The samples are no float32 numbers; sparse sets are those around the rounded samples.",
            "Nothing needs to be done; save the samples as float32 to leave no difference.",
        ),
        "IDL205": Code(
            "a certificate is missing",
            "A sample is certified, but no certificate that stands alone was found in the time.",
            "Raise --time-limit.",
        ),
        "IDL206": Code(
            "a sample could not be decided",
            "The process that worked on it died, ran out of memory or met an internal error; the others went on. The "
            "report is incomplete, unless it was the time that ran out.",
            "Run it again alone with --index, with fewer --jobs or more --max-memory; --resume tries it again.",
        ),
        "IDL207": Code(
            "the journal was continued",
            "Some of the verdicts are those of an earlier run that was interrupted; none is counted twice.",
            "Nothing to do. Without --resume a run starts anew.",
        ),
        "IDL208": Code(
            "the journal could not be written",
            "The samples decided after this point would be lost if the run were killed; the report is not affected.",
            "Make room on the disk, or give another place with -o.",
        ),
        "IDL209": Code(
            "a journal of another version is not continued",
            "The samples in the journal were decided by another version of idl-audit. Its verdicts are not mixed with "
            "those of this one: all samples are decided again.",
            "Nothing to do.",
        ),
        "IDL210": Code(
            "classes of one output",
            "The network has one output. Class 1 is where it is above the threshold, class 0 elsewhere: above 0, or "
            "above 0.5 where the output lies between 0 and 1 for every input, as after a sigmoid. An attack succeeds "
            "where the network's own output crosses the threshold; certified is what is proved to stay on its side.",
            "Give another number with --threshold where the network is used with one.",
        ),
        "IDL211": Code(
            "no second opinion",
            "Attacks are shown to the original network by onnxruntime and, where that is possible, to its conversion "
            "by onnx2torch. Here onnx2torch cannot be loaded or cannot convert the network, or what it makes of it is "
            "another function; falsified is then the word of one implementation, and the report names only that.",
            "Nothing needs to be done. An export with another operator set (opset_version=17) may be one that "
            "onnx2torch converts.",
        ),
        "IDL212": Code(
            "an operator may have no value",
            "Over the set that the message names, bounds of what a quotient, a logarithm, a root or another operator "
            "with a domain reads leave that domain. Nothing is proved there: the network may give NaN or infinity.",
            "Try a smaller eps, or more time where few inputs move: their box is split. Where an operator cannot leave "
            "its domain, a Clip, an Abs or a constant added before it makes that known.",
        ),
        "IDL213": Code(
            "counterexamples by rounding alone",
            "The original network, as its runtime rounds, misclassifies points of the set or meets the property there, "
            "and in exact arithmetic, of which the verdicts speak, it does not, or nothing decides whether it does: a "
            "tie within the rounding of a curve, or a loop. Such points make nothing falsified or sat.",
            "Take them for what the deployed network does. A smaller eps, or a margin in the property, keeps away from "
            "them.",
        ),
        "IDL214": Code(
            "onnxruntime's graph optimisations change the network",
            "Before it runs a graph onnxruntime rewrites it, unless told otherwise. Here the result is another "
            "function: a MatMul with weights behind a DequantizeLinear rounds its other factor to 8 bits too, two "
            "grids in a row become one, integer kernels saturate. Proofs and counterexamples are about the network as "
            "its file has it, which is what is judged; the size of the change is that on a few random inputs.",
            "Deploy it with SessionOptions.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL, or "
            "export it so that there is nothing to rewrite.",
        ),
        "IDL215": Code(
            "float errors were measured with another version",
            "A verdict rests on a bound of what floating-point arithmetic may change, and the network has functions "
            "that a library computes (exp, tanh and the like). What their float32 kernels are off by was measured, "
            "with the versions that reports/kernels.md names; another minor version runs the network here, and its "
            "kernels may differ.",
            "Ask a copy of the sources: `python -m benchmarks.kernel_errors --every 1024 --check` tells whether the "
            "installed versions are within the bounds that proofs take.",
        ),
        "IDL216": Code(
            "two networks compared in part",
            "Either outputs make no classes (one output and no threshold), so that only differences are compared, or "
            "the networks end with different operators that the models leave out, so that only classes are.",
            "Give --threshold, or export both networks with the same last operator.",
        ),
        "IDL217": Code(
            "no bound of what rounding changes",
            "Verdicts were asked for in the floats that the network computes in, and it has an operator, or computes "
            "in a way, for which nothing bounds what runtimes round. Verdicts are unknown; no time was spent on them.",
            "Ask for --arithmetic real: its proofs hold in exact arithmetic, and IDL202 says that no more is known.",
        ),
        "IDL218": Code(
            "inputs are ranked by another network's S",
            "The method sensitivity of attack changes the inputs that another network is most sensitive to (--matrix): "
            "whether attacks transfer. The attacked network alone decides which points count.",
            "Leave --matrix out to rank by the network's own S.",
        ),
        "IDL219": Code(
            "one shard of an audit",
            "The report is of one part of the samples (--shard I/N), decided as the whole run would decide them.",
            "Run the other parts, here or elsewhere, and give all reports to `idl-audit merge`.",
        ),
        "IDL220": Code(
            "the time limit ended verdicts that nodes should have",
            "With --max-nodes every machine does the same work, and --time-limit is a safety net. It ended some "
            "verdicts before their nodes were used: on a faster or less busy machine they may be decided.",
            "Raise --time-limit, or lower --max-nodes. `timed_out@EPS <= 0` is a rule for gate.",
        ),
        "IDL221": Code(
            "an objective of states",
            "The original network shows its outputs alone, so values of an objective that reads states are those of "
            "the implicit model.",
            "Nothing to do: the agreement of the two is in the report.",
        ),
        "IDL222": Code(
            "decided on a cluster",
            "The workers of a Dask scheduler did the work (--scheduler). Verdicts do not depend on who decides.",
            "Nothing to do.",
        ),
        "IDL223": Code(
            "workers of a cluster were lost",
            "Workers ended while they were at work. What they had not answered was given to others: no verdict is lost "
            "or counted twice.",
            "Nothing to do; where it happens often, give workers more memory.",
        ),
        "IDL224": Code(
            "the scheduler was lost",
            "The scheduler of --scheduler ended or could not be reached any more, or its workers could not do the "
            "work. The report is incomplete.",
            "Start it again, and the same command with --resume: what is decided is kept in the journal.",
        ),
        "IDL225": Code(
            "no implicit form",
            "Parts of the network are not read, so that nothing about it can be proved. attack, and certify with "
            "--best-effort, go on with what needs the original network alone: sign, random and pgd, with slopes by "
            "torch or by differences. falsified is the network's own word, as it runs; nothing is certified.",
            "The message names the parts, and what can be read in their place; docs/operators.md has the list.",
        ),
        "IDL226": Code(
            "all workers of a cluster are gone",
            "The scheduler of --scheduler has no workers any more. What they had not answered is kept for the next "
            "that come; after --worker-timeout the run ends with what is decided.",
            "Start workers; or end the run by Ctrl-C, and go on with --resume.",
        ),
        "IDL301": Code(
            "the model is not rescaled",
            "No powers of two bring the norm of A below --kappa; the reason is in the message.",
            "Nothing needs to be done: the model is the same function.",
        ),
        "IDL302": Code(
            "entries of S are not finite",
            "The bound on the sensitivity is beyond the range of float64, or an operator has no bounded slope for all "
            "inputs (Exp, Log, a product), and nothing is said.",
            "Ask for S within boxes: give -d and -e.",
        ),
        "IDL303": Code(
            "inputs without influence",
            "No output depends on these inputs, whatever the others are: no chain of coefficients leads from them.",
            "Nothing needs to be done; measuring them is needless.",
        ),
        "IDL304": Code(
            "no guaranteed drift",
            "Nothing bounds how far the outputs of the smaller model can be from the original's; the figure that was "
            "measured on samples proves nothing about others.",
            "Give a box of inputs with -d or --bounds, or compress less.",
        ),
        "IDL305": Code(
            "nothing proves that the state is unique",
            "The model's loop has no proof that there is exactly one state for every input. What is printed solves the "
            "equation up to the residual; another state may solve it too.",
            "Scale the loop's coefficients down, or train with a constraint that ensures it.",
        ),
        "IDL306": Code(
            "the network jumps",
            "An operator rounds, compares or takes signs. Where it jumps no number bounds its slope, so that S is "
            "infinite, and nothing that is made of S says anything.",
            "Ask for verdicts (certify, attack) or bounds by interval and linear; S can be had of the float network.",
        ),
        "IDL307": Code(
            "a loop keeps its product",
            "A loop whose matrix has the rank that was asked for is stored as one matrix: nothing proves that the "
            "loop with its two factors has one state for every input.",
            "Nothing needs to be done: the function is the same, its file is larger than two factors would be.",
        ),
        "IDL308": Code(
            "kappa was not reached",
            "The rescaled model has ||A||_inf above --kappa: no scaling of states brings the norm of a loop below "
            "lambda_PF(|A|), the spectral radius of its absolute values.",
            "Nothing needs to be done: the model is the same function, and the norm is below 1.",
        ),
        "IDL309": Code(
            "no level of the compression keeps enough samples certified",
            "The model was compressed as little as is tried, and fewer of the samples were certified than "
            "--keep-certified asks for; no file was written.",
            "Ask for fewer samples, or give each verdict more time with --time-limit.",
        ),
        "IDL401": Code(
            "a method of bounds is left out",
            "A method does not apply to the model, or would need too much memory; the reason is in the message.",
            "Raise --max-memory where the memory is the reason.",
        ),
        "IDL402": Code(
            "bounds were cut short",
            "The time ran out: some states keep the bounds of an earlier method. They hold, but are wider.",
            "Raise --time-limit.",
        ),
        "IDL403": Code(
            "outputs without finite bounds",
            "No method that was used bounds an output on these sets.",
            "Use more methods, or a smaller eps.",
        ),
        "IDL404": Code(
            "each input has its own radius",
            "With --sigma an input moves by at most eps times its own radius.",
            "Nothing needs to be done.",
        ),
        "IDL405": Code(
            "bounds of computed outputs",
            "With --arithmetic float32 the outputs' bounds hold for whatever a runtime computes for float32 inputs of "
            "the set, and with the name of other floats likewise. Bounds of states, and the widths that each method "
            "gives, are those of exact arithmetic.",
            "Nothing needs to be done.",
        ),
        "IDL501": Code(
            "no float32 number in an input's interval",
            "No input that the network can be given lies in the property's box, so no counterexample can be confirmed.",
            "Widen the bounds to numbers that float32 holds.",
        ),
        "IDL502": Code(
            "a result contradicts the truth",
            "A property was decided otherwise than the list that `bench` was given says.",
            "One of the two is wrong: please report it.",
        ),
        "IDL503": Code(
            "a property or network is refused",
            "A row of the list names files that cannot be read or have no implicit form: it was not judged, and the "
            "report is incomplete.",
            "The message names what is missing; --resume decides the row again.",
        ),
        "IDL504": Code(
            "the process of a property was lost",
            "The process that decided a row was killed, ran out of memory, or did not end in time. Unless it was the "
            "time, the row was not judged, and the report is incomplete.",
            "Run it again with fewer --jobs, or alone with `certify`; --resume goes on with what is missing.",
        ),
        "IDL505": Code(
            "the certificate of a property is missing",
            "A property or query is unsat, but no certificate that stands alone was found in the time.",
            "Raise --time-limit.",
        ),
        "IDL506": Code(
            "rows of an earlier report are decided again",
            "With --resume a row is kept only where this version of idl-audit judged it on the same bytes, those of "
            "weights beside the network included, and, where it was undecided, in no less time than it gets now.",
            "Nothing to do. To keep the earlier rows, give another name with -o.",
        ),
        "IDL507": Code(
            "a proof file of an old format",
            "The file that `verify` read is of format 1, which the next release no longer reads.",
            "Write it anew with the command that wrote it.",
        ),
        "IDL508": Code(
            "why a VNN-LIB 2 query is undecided",
            "Neither a point that satisfies the query was found, nor a proof that none does, in the arithmetic that it "
            "declares: of float32 a proof pays for every rounding, of real numbers a point is confirmed exactly.",
            "Raise --time-limit. Where roundings are what keeps a proof from being one, declare all variables as real.",
        ),
        "IDL509": Code(
            "the assignment of a VNN-LIB 2 query is rounded",
            "A query about real numbers holds at the exact point that was found, of which some entry is no decimal "
            "(1/3), and at no point near it that can be written; or its networks have no exact form, and hidden "
            "tensors and outputs are told as floats.",
            "Nothing to do. Whoever checks the assignment must allow for the digits that are printed.",
        ),
        "IDL601": Code(
            "nothing was gained",
            "None of the trade-offs that training reached certifies more of the samples kept apart and keeps their "
            "clean accuracy; no file was written.",
            "Allow a larger loss with --keep-clean, train longer with --minutes, or choose a smaller eps.",
        ),
        "IDL602": Code(
            "clean accuracy before may be flattered",
            "The samples kept apart are a part of the training data. Where the network was trained on them before, it "
            "is better on them than on others, and what hardening loses looks larger than it is.",
            "Give samples that the network has not been trained on with --holdout FILE.",
        ),
        "IDL603": Code(
            "samples are in two of the three sets",
            "A sample of --audit or --holdout is also trained on, or chosen by. Verdicts on it would say nothing about "
            "samples that the network has not seen.",
            "Leave it out of one of the two files.",
        ),
        "IDL604": Code(
            "inputs of very different size are trained in one unit",
            "Inputs are taken to be of one kind by `train` where --bounds are given or samples are images. One of them "
            "deviates a hundred times as much as the middle one, so that the others are hardly seen.",
            "Leave --bounds out, so that each input is trained in units of its own deviation, or give --mean and --std "
            "for each input.",
        ),
        "IDL605": Code(
            "training was interrupted",
            "The user ended `harden` before its time. What it had reached was judged as usual; what lies beside the "
            "output (OUT.run) has where training stood.",
            "Give the same command with --resume to go on: it ends with the weights of a run without an interruption.",
        ),
    }
)
"""Code -> its meaning. Stable across versions: a code is never used for something else."""


WORDS: Final[Mapping[str, Code]] = MappingProxyType(
    {
        "certified": Code(
            "a verdict",
            "It is proved that no input of the set changes the class: a bound that was evaluated again, in float64 "
            "rounded outward. By default for real numbers; --arithmetic float32 for what runtimes compute.",
            "Write the proof with --certificates and check it with `verify`.",
        ),
        "falsified": Code(
            "a verdict",
            "An input of the set was found that the original network, asked about it alone, gives another class.",
            "Look at it with --save or --images.",
        ),
        "unknown": Code(
            "a verdict",
            "Neither a proof nor a counterexample was found: the sample is not safe. The reason stands beside it.",
            "More time (--time-limit, --max-nodes) or a smaller eps may decide it.",
        ),
        "clean_wrong": Code(
            "a verdict",
            "The network gives the sample another class than its label, without any change.",
            "Look at the labels and at the preprocessing first: IDL101 says where another reading would do better.",
        ),
        "time_limit": Code(
            "why a verdict is unknown",
            "The time for one sample at one radius was over.",
            "Raise --time-limit, or count nodes in its place with --max-nodes, which is the same on every machine.",
        ),
        "node_limit": Code(
            "why a verdict is unknown",
            "The nodes of --max-nodes were used up: boxes, leaves of trees, programs, starts of attacks.",
            "Raise --max-nodes.",
        ),
        "memory_limit": Code(
            "why a verdict is unknown",
            "An array would have been larger than --max-memory allows.",
            "Raise --max-memory.",
        ),
        "solver_failed": Code(
            "why a verdict is unknown",
            "The solver of linear programs gave no usable answer; nothing was decided by it.",
            "Leave out lp, exact and mip with --method.",
        ),
        "worker_failed": Code(
            "why a verdict is unknown",
            "The process that decided the sample died; the others went on.",
            "Try the sample alone with --index; give less memory to others with fewer --jobs.",
        ),
        "no_uniqueness_proof": Code(
            "why a verdict is unknown",
            "The model has a loop, and nothing proves that there is one state for every input: what is proved of one "
            "state would not be about the others.",
            "Make the loop a contraction, or monotone: `convert` says which proofs there are.",
        ),
        "relaxation_gap": Code(
            "why a verdict is unknown",
            "The methods that were asked for end without a proof: their bounds are not tight enough, and no attack "
            "found a point.",
            "Add branch or exact to --method, or leave --method out.",
        ),
        "attacks_failed": Code(
            "why a verdict is unknown",
            "Only attacks were asked for, and they found nothing: no proof was tried.",
            "Ask `certify`.",
        ),
        "solver_only": Code(
            "why a verdict is unknown",
            "A solver says that there is no counterexample, and no proof of it could be checked.",
            "Use methods that prove: branch, exact, linear.",
        ),
        "outside_domain": Code(
            "why a verdict is unknown",
            "Over the set an operator may be asked for what is no number: a logarithm of 0, a quotient by 0.",
            "Take a smaller eps, or --bounds that keep inputs inside; IDL212 names the operator.",
        ),
        "no_rounding_bound": Code(
            "why a verdict is unknown",
            "With --arithmetic float32: nothing bounds what rounding changes in this network or over this set.",
            "Leave --arithmetic out for a proof in exact arithmetic; IDL217 names the operator.",
        ),
        "within_rounding": Code(
            "why a verdict is unknown",
            "With --arithmetic float32: the margin is proved in exact arithmetic, and rounding may take more than it.",
            "Take a smaller eps, or leave --arithmetic out.",
        ),
        "no_implicit_form": Code(
            "why a verdict is unknown",
            "Parts of the network are not read, so that nothing can be proved; attacks on the network itself found no "
            "point.",
            "IDL225 names the parts; put what docs/operators.md lists in their place for a proof.",
        ),
    }
)
"""The words of a verdict, and of why one is unknown, with the same: every word of `values.verdicts`."""
