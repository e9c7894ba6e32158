"""Metrics of unlearning and of suppression: pure functions from what was measured to numbers."""

from __future__ import annotations

from elision.evaluation.metrics.base import Metric as Metric
from elision.evaluation.metrics.forget_quality import ForgetQuality as ForgetQuality
from elision.evaluation.metrics.forget_quality import forget_quality as forget_quality
from elision.evaluation.metrics.intervals import bootstrap as bootstrap
from elision.evaluation.metrics.intervals import wilson as wilson
from elision.evaluation.metrics.leak import leak_at_k as leak_at_k
from elision.evaluation.metrics.likelihood import choice_probability as choice_probability
from elision.evaluation.metrics.likelihood import forget_truth_ratio as forget_truth_ratio
from elision.evaluation.metrics.likelihood import model_utility as model_utility
from elision.evaluation.metrics.likelihood import probability as probability
from elision.evaluation.metrics.likelihood import truth_ratio as truth_ratio
from elision.evaluation.metrics.likelihood import utility_truth_ratio as utility_truth_ratio
from elision.evaluation.metrics.text import exposure as exposure
from elision.evaluation.metrics.text import identical as identical
from elision.evaluation.metrics.text import rouge_l_recall as rouge_l_recall
from elision.evaluation.metrics.text import unique_token_ratio as unique_token_ratio
