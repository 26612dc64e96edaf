"""RabbitMQ, over aio-pika. Nothing outside this package knows aio-pika, aiormq or pamqp."""

from .broker import RabbitMQBroker

__all__ = ["RabbitMQBroker"]
