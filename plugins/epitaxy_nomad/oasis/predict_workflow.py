"""The workflow of the action: one activity, tried again only where that can help.

Temporal imports this module in a sandbox, without the packages above it; what is passed through
is imported once, outside.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from nomad.config import config

    from epitaxy_nomad.oasis.predict_activity import PREDICT, REFUSED
    from epitaxy_nomad.oasis.predict_models import (
        PredictInput,
        PredictJob,
        PredictLimits,
        PredictOutput,
    )

ENTRY_POINT = "epitaxy_nomad.oasis.entry_points:predict_action"


@workflow.defn(name="EpitaxyPredictWorkflow")
class PredictWorkflow:
    """Predicts with a stored model on entries of an upload."""

    @workflow.run  # type: ignore[untyped-decorator]
    async def run(self, data: PredictInput) -> PredictOutput:
        """Run the activity in the action worker."""
        options = config.get_plugin_entry_point(ENTRY_POINT)
        limits = PredictLimits(
            max_structures=options.max_structures,
            max_inline=options.max_inline,
            max_references=options.max_references,
        )
        output: PredictOutput = await workflow.execute_activity(
            PREDICT,
            PredictJob(request=data, limits=limits),
            result_type=PredictOutput,
            start_to_close_timeout=timedelta(seconds=options.timeout),
            heartbeat_timeout=timedelta(seconds=options.heartbeat_timeout),
            retry_policy=RetryPolicy(
                initial_interval=timedelta(seconds=20),  # an upload may be busy for a while
                maximum_attempts=5,
                non_retryable_error_types=[REFUSED],
            ),
        )
        return output
