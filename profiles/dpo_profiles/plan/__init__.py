"""What a run should cost, per GPU, component and phase, before it starts."""

from dpo_profiles.plan.make import make_plan
from dpo_profiles.plan.report import Plan

__all__ = ["Plan", "make_plan"]
