"""Every runtime policy once more, sample by sample, in the plainest Python.

``scores``, ``correct`` and ``predicted`` are lists of rows, one per sample, with one entry per
column; ``used`` lists the columns of the exits in use; the last column is the final classifier.
"""

from __future__ import annotations

import math


def leave_by_thresholds(scores, thresholds, used):
    leaves_at = []
    for row in scores:
        at = len(row) - 1
        for column in used:
            if row[column] >= thresholds[column]:
                at = column
                break
        leaves_at.append(at)
    return leaves_at


def leave_by_agreement(predicted, patience, used):
    leaves_at = []
    for row in predicted:
        at, last, agreeing = len(row) - 1, None, 0
        for column in used:
            agreeing = agreeing + 1 if row[column] == last else 1
            last = row[column]
            if agreeing == patience:
                at = column
                break
        leaves_at.append(at)
    return leaves_at


def leave_when_right(correct, used):
    return [next((j for j in used if row[j]), len(row) - 1) for row in correct]


def fit_tolerance(scores, correct, used, tolerance, min_samples):
    thresholds = [math.inf] * (len(scores[0]) - 1) + [0.0]
    for column in used:
        for candidate in sorted({row[column] for row in scores}):
            above = [i for i, row in enumerate(scores) if row[column] >= candidate]
            exit_right = sum(correct[i][column] for i in above)
            final_right = sum(correct[i][-1] for i in above)
            if len(above) >= min_samples and exit_right >= final_right - tolerance * len(above) - 1e-9:
                thresholds[column] = candidate
                break
    return thresholds


def fit_shares(scores, used, q):
    powers = [q**k for k in range(1, len(used) + 2)]
    thresholds = [math.inf] * (len(scores[0]) - 1) + [0.0]
    staying = list(range(len(scores)))
    for column, power in zip(used, powers, strict=False):
        wanted = min(int(len(scores) * (power / sum(powers))), len(staying))
        if wanted:
            surest = sorted((scores[i][column] for i in staying), reverse=True)
            thresholds[column] = surest[wanted - 1]
            staying = [i for i in staying if scores[i][column] < thresholds[column]]
    return thresholds


def mean_cost(leaves_at, segment, head, evaluated):
    total = 0.0
    for at in leaves_at:
        for column in range(at + 1):
            total += segment[column]
            if column in evaluated:
                total += head[column]
    return total / len(leaves_at)


def accuracy_of(correct, leaves_at):
    return sum(row[at] for row, at in zip(correct, leaves_at, strict=True)) / len(correct)


def choose_shares(scores, correct, used, segment, head, tolerance):
    """Thresholds of the cheapest q within the tolerance; nobody leaves early if there is none."""
    never = [math.inf] * (len(scores[0]) - 1) + [0.0]
    best = None
    for q in [*(k / 20 for k in range(1, 41)), None]:
        thresholds = never if q is None else fit_shares(scores, used, q)
        leaves_at = leave_by_thresholds(scores, thresholds, used)
        accuracy = accuracy_of(correct, leaves_at)
        cost = mean_cost(leaves_at, segment, head, [j for j in used if math.isfinite(thresholds[j])])
        full = sum(row[-1] for row in correct) / len(correct)
        if accuracy >= full - tolerance - 1e-9 and (best is None or (cost, -accuracy) < best[0]):
            best = ((cost, -accuracy), thresholds)
    return best[1]


def betting_wins(losses, risk, delta):
    """Whether the capital of the gambler ever reaches 1 / delta."""
    capital, total, squares = 1.0, 0.0, 0.0
    variance = 0.25
    for i, loss in enumerate(losses, start=1):
        bet = min(1.0, math.sqrt(2 * math.log(1 / delta) / (len(losses) * variance)))
        capital *= 1 - bet * (loss - risk)
        if capital >= 1 / delta:
            return True
        total += loss
        squares += (loss - (0.5 + total) / (i + 1)) ** 2
        variance = (0.25 + squares) / (i + 1)
    return False


def fit_risk(scores, correct, group, used, epsilon, delta, order):
    """One threshold for all exits in use; ``order`` is the order in which images are betted on."""
    chosen = math.inf
    for k in range(201):
        threshold = 1 - (k / 200) ** 2
        leaves_at = leave_by_thresholds(scores, [threshold] * len(scores[0]), used)
        losses = {}
        for image, row, at in zip(group, correct, leaves_at, strict=True):
            losses.setdefault(image, []).append(bool(row[-1] and not row[at]))
        per_image = [sum(losses[image]) / len(losses[image]) for image in sorted(losses)]
        if not betting_wins([per_image[i] for i in order], epsilon, delta):
            break
        chosen = threshold
    return [chosen if j in used else math.inf for j in range(len(scores[0]) - 1)] + [0.0]
