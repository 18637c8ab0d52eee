"""Sending values to a task, and getting its result back, without any broker."""

from chicory import TaskContext
from chicory.serializer import JsonSerializer
from chicory.signature import Signature

JSON = JsonSerializer()


def taking(annotation):
    """The signature of a task that takes and returns *annotation*."""

    def function(value): ...

    function.__annotations__ = {"value": annotation, "return": annotation}
    return Signature("tasks.echo", function, TaskContext, {})


def there_and_back(signature, args, kwargs, *, check=True, serializer=JSON):
    sent = signature.encode(args, kwargs, check=check, serializer=serializer)
    arrived_args, arrived_kwargs = signature.decode(sent, check=check, serializer=serializer)
    (arrived,) = (*arrived_args, *arrived_kwargs.values())
    return arrived


def result_there_and_back(signature, value, *, check=False, serializer=JSON):
    sent = signature.encode_result(value, check=check, serializer=serializer)
    return signature.decode_result(sent, serializer=serializer)
