"""What workers add to the totals that ``/metrics`` shows.

Work-horses live for one job, so they count in Redis; every API process reports the same numbers.
"""

from __future__ import annotations

from torchpruner_service.state.job_board import JobBoard
from torchpruner_service.state.job_record import JobRecord
from torchpruner_service.state.redis_clients import REDIS_ERRORS

BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


def count_job(board: JobBoard, record: JobRecord, seconds: float, stages: dict[str, float]) -> None:
    """Add one ended attempt to the totals. Never raises: counting must not fail a job."""
    try:
        pipe = board.connection.pipeline(transaction=False)
        key = board.keys.counters
        pipe.hincrby(key, f"jobs|{record.kind}|{record.state}", 1)
        for stage, spent in {**stages, "total": seconds}.items():
            pipe.hincrbyfloat(key, f"seconds|{record.kind}|{stage}", spent)
            pipe.hincrby(key, f"count|{record.kind}|{stage}", 1)
            for bucket in BUCKETS:
                if spent <= bucket:
                    pipe.hincrby(key, f"bucket|{record.kind}|{stage}|{bucket}", 1)
        pipe.execute()
    except REDIS_ERRORS:
        pass
