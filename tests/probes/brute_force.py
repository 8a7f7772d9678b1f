"""Each measure of the weights as its equation says: plain numpy and scipy, in float64 or more."""

import numpy as np
import scipy.linalg


def power_law(values):
    """Alpha, distance, xmin and n of the tail, by a loop over every start."""
    x = sorted(values)
    best = (np.nan,) * 4
    for start in range(len(x) - 1):
        if start and x[start] == x[start - 1]:
            continue
        tail = np.array(x[start:])
        total = sum(np.log(value / tail[0]) for value in tail)
        if total == 0:
            continue
        alpha = 1 + len(tail) / total
        distance = max(abs(1 - (value / tail[0]) ** (1 - alpha) - i / len(tail)) for i, value in enumerate(tail))
        if not distance >= best[1]:
            best = alpha, distance, tail[0], len(tail)
    return best


def angle(a, b):
    """Kahan's formula, exact for all angles."""
    a, b = a / np.sqrt(a @ a), b / np.sqrt(b @ b)
    return np.degrees(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))


def of_both(forward, feedback):
    """Measures that compare W and B."""
    w, b = (array.astype(np.longdouble).ravel() for array in (forward, feedback))
    w_norm, b_norm = np.sqrt(w @ w), np.sqrt(b @ b)
    signed = (w != 0) & (b != 0)
    same = (np.sign(w) == np.sign(b))[signed]
    weight = np.abs(w[signed])
    rows = zip(w.reshape(len(forward), -1), b.reshape(len(forward), -1), strict=True)
    units = [angle(x, y) for x, y in rows if x.any() and y.any()]
    quartiles = np.quantile(np.array(units, np.float64), (0.25, 0.5, 0.75))
    return {
        "weight_angle": angle(w, b),
        "unit_angle_lower_quartile": quartiles[0],
        "unit_angle_median": quartiles[1],
        "unit_angle_upper_quartile": quartiles[2],
        "sign_agreement": np.mean(same),
        "weighted_sign_agreement": (weight * same).sum() / weight.sum(),
        "forward_norm": w_norm,
        "feedback_norm": b_norm,
        "norm_ratio": b_norm / w_norm,
        "weight_gain": (b @ w) / (w @ w),
        "relative_distance": np.linalg.norm(b - w) / w_norm,
    }


def of_one(matrix, eps):
    """Measures of one matrix."""
    sigma = scipy.linalg.svdvals(matrix)
    nonzero = sigma[
        sigma > sigma[0] * max(eps * np.linalg.norm(sigma / sigma[0]), max(matrix.shape) * np.finfo(float).eps)
    ]
    share, squares = nonzero / nonzero.sum(), (nonzero / sigma[0]) ** 2
    edge = np.sqrt(np.mean((matrix / sigma[0]) ** 2)) * sigma[0] * sum(np.sqrt(matrix.shape))
    alpha, distance, start, n = power_law(squares)
    with np.errstate(over="ignore", under="ignore"):
        xmin = start * sigma[0] ** 2
    return {
        "singular_values": sigma,
        "spectral_norm": sigma[0],
        "nuclear_norm": sigma.sum(),
        "stable_rank": squares.sum(),
        "effective_rank": np.exp(-(share * np.log(share)).sum()),
        "participation_ratio": squares.sum() ** 2 / (squares**2).sum(),
        "condition_number": sigma[0] / sigma[-1] if nonzero.size == sigma.size else np.nan,
        "marchenko_pastur_edge": edge,
        "outliers": (sigma > edge).sum(),
        "power_law_alpha": alpha,
        "power_law_distance": distance,
        "power_law_xmin": xmin if 0 < xmin < np.inf else np.nan,
        "power_law_n": n,
    }


def of_subspaces(w, b, modes=10, eps=0.0):
    """Principal angles between the first singular vectors; NaN where these are not determined."""
    modes = min(modes, *w.shape)
    bases = []
    for matrix in (w, b):
        left, sigma, right = scipy.linalg.svd(matrix, full_matrices=False)
        rounding = eps * sigma[0] * np.linalg.norm(sigma / sigma[0])
        if np.append(sigma, 0)[modes] > sigma[modes - 1] - 1e-9 * sigma[0] or sigma[modes - 1] < rounding:
            left, right = left * np.nan, right * np.nan
        bases.append((left[:, :modes], right[:modes].T))
    values = {}
    for side, pair in zip(("output", "input"), zip(*bases, strict=True), strict=True):
        finite = np.isfinite(pair).all()
        angles = np.degrees(scipy.linalg.subspace_angles(*pair)) if finite else np.array([np.nan])
        values[f"{side}_principal_angle_mean"] = angles.mean()
        values[f"{side}_principal_angle_max"] = angles.max()
    return values


def brute(forward, feedback):
    """All measures of a dense or convolutional layer without groups."""
    w, b = (array.astype(np.float64).reshape(len(array), -1) for array in (forward, feedback))
    eps = np.finfo(forward.dtype).eps
    product = w @ b.T if w.shape[0] <= w.shape[1] else b.T @ w
    values = of_both(forward, feedback) | of_subspaces(w, b, eps=eps)
    values["descent_eigenvalue"] = scipy.linalg.eigvals(product).real.min()
    for side, matrix in (("forward", w), ("feedback", b)):
        values |= {f"{side}_{name}": value for name, value in of_one(matrix, eps).items()}
    return values
