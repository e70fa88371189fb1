"""How long a task takes from being sent to its result, on a bus with nothing else to do, beside a bare client's."""

from benchmarks.round_trip.measure import RoundTrip, bare_round_trip, worker_round_trip

__all__ = ["RoundTrip", "bare_round_trip", "worker_round_trip"]
