"""Is an engine as good as its reference? Metrics, statistics, the golden self-test and the comparison on data."""

from ran_deploy.verification.comparison import Comparison, compare
from ran_deploy.verification.golden import SelfTestResult, self_test
from ran_deploy.verification.metrics import LogitErrors
from ran_deploy.verification.statistics import PairedOutcome, Verdict, judge

__all__ = ["Comparison", "LogitErrors", "PairedOutcome", "SelfTestResult", "Verdict", "compare", "judge", "self_test"]
