"""Apache Kafka, through confluent-kafka: ``kafka://host:9092``."""

from bus.kafka.adapter import KafkaBus

__all__ = ["KafkaBus"]
