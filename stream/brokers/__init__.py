"""Readers and writers of records: Kafka through confluent-kafka and kafka-python, and Faust.

May import ports, events and settings; the worker never imports this room.
Begin with `kafka_source` and `kafka_sink`; `topics` and `kafka_admin` are for commands.
"""
