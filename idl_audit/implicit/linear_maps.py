"""Linear maps between flat vectors, each in the form that it is cheapest in.

Every map W, shape (n_out, n_in), knows W x, W^T y, |W| (entrywise, exact) and its CSR form. Vectors come in batches of
rows: `apply` takes (m, n_in) and returns (m, n_out). The forms:

    Selection     at most one nonzero a row: reshapes, slices, padding, diagonal scalings, the identity
    Dense         a matrix
    Sparse        CSR
    Convolution   a kernel (in `convolution.py`), and its transpose
    Reindexed     Selection o (a form above) o Selection, kept as factors because |.| passes through them exactly

Products are made by `composition.compose`. No form is a plain product of two matrices, so |W2||W1| cannot happen in
place of |W2 W1| by silence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import scipy.sparse as sp

from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.products import product
from idl_audit.values.rounding import LOST, gamma


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearMap(ABC):
    """A linear map R^n_in -> R^n_out.

    Folding a batch-norm or multiplying two layers out rounds. What the file's weights give in exact arithmetic, W_true,
    is within |W_true - W| <= relative |W| + slack, entrywise; a slack of None is zero. Constants that the file computes
    from constants alone count as weights, with the values that their operators give in the file's own type.
    """

    relative: float = 0.0
    slack: LinearMap | None = None

    @property
    @abstractmethod
    def n_in(self) -> int:
        """Length of the vectors that go in."""

    @property
    @abstractmethod
    def n_out(self) -> int:
        """Length of the vectors that come out."""

    @property
    @abstractmethod
    def nnz(self) -> int:
        """Number of entries that the CSR form would hold (an upper bound on the nonzeros)."""

    @property
    def nonzeros(self) -> int:
        """Number of entries that are not 0, where they are stored one by one; else `nnz`."""
        return self.nnz

    @property
    @abstractmethod
    def row_terms(self) -> int:
        """Largest number of products that are summed for one entry of W x."""

    @property
    @abstractmethod
    def column_terms(self) -> int:
        """Largest number of products that are summed for one entry of W^T y."""

    @abstractmethod
    def apply(self, x: FloatArray) -> FloatArray:
        """Return W x for each row of x, shape (m, n_in) -> (m, n_out)."""

    @abstractmethod
    def adjoint(self, y: FloatArray) -> FloatArray:
        """Return W^T y for each row of y, shape (m, n_out) -> (m, n_in)."""

    @abstractmethod
    def absolute(self) -> LinearMap:
        """Return |W|, entrywise and exact."""

    @abstractmethod
    def to_sparse(self) -> sp.csr_array:
        """Return W in CSR form, float64, sorted indices."""

    @cached_property
    def magnitude(self) -> LinearMap:
        """|W|, made once."""
        return self.absolute()

    @cached_property
    def row_sums(self) -> FloatArray:
        """|W| 1, rounded upward: the row sums of absolute values, shape (n_out,)."""
        ones = np.ones((1, self.n_in))
        return np.asarray(self.magnitude.apply(ones)[0] * (1 + 2 * gamma(self.row_terms + 1)) + self.row_loss)

    @cached_property
    def column_sums(self) -> FloatArray:
        """|W|^T 1, rounded upward: the column sums of absolute values, shape (n_in,)."""
        ones = np.ones((1, self.n_out))
        return np.asarray(self.magnitude.adjoint(ones)[0] * (1 + 2 * gamma(self.column_terms + 1)) + self.column_loss)

    @property
    def row_loss(self) -> FloatArray | float:
        """What underflow between the steps of W x may cost an entry, whatever x is; 0 where there is but one step."""
        return 0.0

    @property
    def column_loss(self) -> FloatArray | float:
        """What underflow between the steps of W^T y may cost an entry, whatever y is."""
        return 0.0

    @property
    def norm_inf(self) -> float:
        """||W||_inf, the largest row sum of absolute values, rounded upward."""
        return float(self.row_sums.max(initial=0.0))

    def uncertain(self, relative: float, slack: LinearMap | None = None) -> Self:
        """Return the same map with other bounds on what rounding did to it."""
        return replace(self, relative=relative, slack=slack)

    def pull_uncertainty(self, y: FloatArray) -> FloatArray:
        """Return a bound of |(W_true - W)^T y'| over all |y'| <= y, beside rounding: relative |W|^T y + slack^T y."""
        result = self.relative * self.magnitude.adjoint(y) if self.relative else np.zeros((len(y), self.n_in))
        return result if self.slack is None else result + self.slack.adjoint(y)

    @cached_property
    def uncertain_column_sums(self) -> FloatArray:
        """Column sums of |W_true - W|, rounded upward, shape (n_in,)."""
        sums = self.relative * self.column_sums
        return sums if self.slack is None else sums + self.slack.column_sums

    @cached_property
    def uncertain_norm(self) -> float:
        """||W_true - W||_inf, rounded upward."""
        sums = self.relative * self.row_sums
        return float((sums if self.slack is None else sums + self.slack.row_sums).max(initial=0.0))


@dataclass(frozen=True, eq=False, kw_only=True)
class Selection(LinearMap):
    """y_i = weights_i x[index_i], and y_i = 0 where index_i = -1; no weights means ones."""

    index: IntArray
    size_in: int
    weights: FloatArray | None = None

    @classmethod
    def identity(cls, n: int) -> Selection:
        """Return the identity of R^n."""
        return cls(index=np.arange(n), size_in=n)

    @classmethod
    def diagonal(cls, weights: FloatArray) -> Selection:
        """Return diag(weights)."""
        return cls(index=np.arange(weights.size), size_in=weights.size, weights=np.asarray(weights, np.float64))

    @property
    def n_in(self) -> int:
        """Length of the vectors that go in."""
        return self.size_in

    @property
    def n_out(self) -> int:
        """Length of the vectors that come out."""
        return int(self.index.size)

    @cached_property
    def nnz(self) -> int:
        """Number of rows that are not zero."""
        return int((self.index >= 0).sum())

    @property
    def row_terms(self) -> int:
        """One: nothing is summed."""
        return 1

    @cached_property
    def column_terms(self) -> int:
        """How often the most used input is read."""
        used = self.index[self.index >= 0]
        return int(np.bincount(used).max()) if used.size else 1

    @property
    def is_column_monomial(self) -> bool:
        """Whether no input is read twice, so that |W P| = |W| |P| for every W."""
        return self.column_terms <= 1

    @cached_property
    def is_diagonal(self) -> bool:
        """Whether every output reads the input of the same number."""
        return self.size_in == self.index.size and bool((self.index == np.arange(self.index.size)).all())

    @property
    def is_identity(self) -> bool:
        """Whether this is the identity."""
        return self.is_diagonal and self.weights is None

    @cached_property
    def row_weights(self) -> FloatArray:
        """The nonzero of each row; 0 for a row without one."""
        weights = np.ones(self.index.size) if self.weights is None else self.weights
        return np.asarray(np.where(self.index >= 0, weights, 0.0))

    @cached_property
    def _is_plain(self) -> bool:
        return self.weights is None and bool((self.index >= 0).all())

    def apply(self, x: FloatArray) -> FloatArray:
        """Return W x for each row of x."""
        if self.is_identity:
            return x
        if not self.size_in:
            return np.zeros((len(x), self.n_out))
        taken = x[:, self.index]
        return taken if self._is_plain else taken * self.row_weights

    def adjoint(self, y: FloatArray) -> FloatArray:
        """Return W^T y for each row of y."""
        if self.is_identity:
            return y
        if self.is_diagonal:
            return y * self.row_weights
        if self.is_column_monomial:
            used = self.index >= 0
            result = np.zeros((y.shape[0], self.n_in))
            result[:, self.index[used]] = (y * self.row_weights)[:, used]
            return result
        return np.asarray((self._transposed @ y.T).T)

    @cached_property
    def _transposed(self) -> sp.csr_array:
        return sp.csr_array(self.to_sparse().T)

    def absolute(self) -> Selection:
        """Return |W|."""
        return replace(self, weights=None if self.weights is None else np.abs(self.weights), relative=0.0, slack=None)

    def to_sparse(self) -> sp.csr_array:
        """Return W in CSR form."""
        used = self.index >= 0
        indptr = np.concatenate([[0], np.cumsum(used)])
        return sp.csr_array((self.row_weights[used], self.index[used], indptr), shape=(self.n_out, self.n_in))


@dataclass(frozen=True, eq=False, kw_only=True)
class Dense(LinearMap):
    """A matrix."""

    matrix: FloatArray

    @property
    def n_in(self) -> int:
        """Length of the vectors that go in."""
        return int(self.matrix.shape[1])

    @property
    def n_out(self) -> int:
        """Length of the vectors that come out."""
        return int(self.matrix.shape[0])

    @property
    def nnz(self) -> int:
        """Number of entries."""
        return int(self.matrix.size)

    @property
    def nonzeros(self) -> int:
        """Number of entries that are not 0."""
        return int(np.count_nonzero(self.matrix))

    @property
    def row_terms(self) -> int:
        """Number of columns."""
        return self.n_in

    @property
    def column_terms(self) -> int:
        """Number of rows."""
        return self.n_out

    def apply(self, x: FloatArray) -> FloatArray:
        """Return W x for each row of x; in one layout, so that powers of two change no digit of it."""
        return product(np.ascontiguousarray(x), self.matrix.T)

    def adjoint(self, y: FloatArray) -> FloatArray:
        """Return W^T y for each row of y."""
        return product(y, self.matrix)

    def absolute(self) -> Dense:
        """Return |W|."""
        return replace(self, matrix=np.abs(self.matrix), relative=0.0, slack=None)

    def to_sparse(self) -> sp.csr_array:
        """Return W in CSR form."""
        return sp.csr_array(self.matrix)


@dataclass(frozen=True, eq=False, kw_only=True)
class Sparse(LinearMap):
    """A matrix in CSR form."""

    matrix: sp.csr_array

    @property
    def n_in(self) -> int:
        """Length of the vectors that go in."""
        return int(self.matrix.shape[1])

    @property
    def n_out(self) -> int:
        """Length of the vectors that come out."""
        return int(self.matrix.shape[0])

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return int(self.matrix.nnz)

    @property
    def nonzeros(self) -> int:
        """Number of stored entries that are not 0."""
        return int(np.count_nonzero(self.matrix.data))

    @cached_property
    def row_terms(self) -> int:
        """Most entries in a row."""
        return int(np.diff(self.matrix.indptr).max(initial=1))

    @cached_property
    def column_terms(self) -> int:
        """Most entries in a column."""
        return int(np.bincount(self.matrix.indices, minlength=1).max(initial=1))

    @cached_property
    def _transposed(self) -> sp.csr_array:
        return sp.csr_array(self.matrix.T)

    def apply(self, x: FloatArray) -> FloatArray:
        """Return W x for each row of x."""
        return np.ascontiguousarray((self.matrix @ x.T).T)

    def adjoint(self, y: FloatArray) -> FloatArray:
        """Return W^T y for each row of y."""
        return np.ascontiguousarray((self._transposed @ y.T).T)

    def absolute(self) -> Sparse:
        """Return |W|."""
        return replace(self, matrix=abs(self.matrix), relative=0.0, slack=None)

    def to_sparse(self) -> sp.csr_array:
        """Return the matrix itself."""
        return self.matrix


@dataclass(frozen=True, eq=False, kw_only=True)
class Reindexed(LinearMap):
    """left o core o right with Selections left and right, where no input is read twice by `right`.

    Rows of `left` and columns of `right` have at most one nonzero each, hence |left core right| = |left||core||right|.
    """

    left: Selection
    core: LinearMap
    right: Selection = field()

    def __post_init__(self) -> None:
        if not self.right.is_column_monomial:
            raise ValueError("the inner Selection reads an input twice: |.| would not pass through it exactly")

    @property
    def n_in(self) -> int:
        """Length of the vectors that go in."""
        return self.right.n_in

    @property
    def n_out(self) -> int:
        """Length of the vectors that come out."""
        return self.left.n_out

    @property
    def nnz(self) -> int:
        """An upper bound: the rows read times the longest row."""
        return min(self.left.nnz * self.core.row_terms, self.core.nnz * self.left.column_terms)

    @property
    def row_terms(self) -> int:
        """As many as the core sums."""
        return self.core.row_terms + 2

    @property
    def column_terms(self) -> int:
        """As many as the core sums, for every time a row is read."""
        return self.core.column_terms * self.left.column_terms + 2

    @property
    def _multiplies(self) -> bool:
        return self.left.weights is not None or self.right.weights is not None

    @cached_property
    def row_loss(self) -> FloatArray | float:
        """(LOST K) |left| (|core| 1 + 1): each step may lose 2^-1074 a product, which the later ones multiply."""
        if not (self._multiplies or np.ndim(self.core.row_loss)):
            return 0.0
        inner = self.core.row_sums + 1.0 + self.core.row_loss / LOST
        with np.errstate(over="ignore"):  # what is endless proves nothing
            return np.asarray(self.left.absolute().apply(inner[None])[0] * (LOST * (2 + self.core.row_terms)))

    @cached_property
    def column_loss(self) -> FloatArray | float:
        """(LOST K) |right|^T (|core|^T 1 + 1), likewise for W^T y."""
        if not (self._multiplies or np.ndim(self.core.column_loss)):
            return 0.0
        inner = self.core.column_sums + 1.0 + self.core.column_loss / LOST
        with np.errstate(over="ignore"):
            lost = self.right.absolute().adjoint(inner[None])[0]
            return np.asarray(lost * (LOST * (2 + self.core.column_terms + self.left.column_terms)))

    def apply(self, x: FloatArray) -> FloatArray:
        """Return W x for each row of x."""
        return self.left.apply(self.core.apply(self.right.apply(x)))

    def adjoint(self, y: FloatArray) -> FloatArray:
        """Return W^T y for each row of y."""
        return self.right.adjoint(self.core.adjoint(self.left.adjoint(y)))

    def absolute(self) -> Reindexed:
        """Return |W|."""
        return Reindexed(left=self.left.absolute(), core=self.core.absolute(), right=self.right.absolute())

    def to_sparse(self) -> sp.csr_array:
        """Return W in CSR form."""
        product = self.left.to_sparse() @ self.core.to_sparse() @ self.right.to_sparse()
        result = sp.csr_array(product)
        result.sort_indices()
        return result
