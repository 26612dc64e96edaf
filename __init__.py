"""Callboard: background jobs and schedules for Python services, as actors on RabbitMQ."""
