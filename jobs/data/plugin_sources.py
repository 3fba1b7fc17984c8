"""The reader of a plug-in, whose mistakes become messages with the plug-in's line, and whose images are checked before they are written."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from jobs.data.beton import DataError
from jobs.data.content import Content, Look, Part, Reader
from jobs.experiment.specs import DataSpec
from models.plugins.modules import line_in_plugin

Result = TypeVar("Result")


def guarded(source: str, reader: Reader) -> Reader:
    """A reader with the same functions. They raise DataError, or OSError, for whatever goes wrong in them; `problems` and `look` tell it."""
    call = partial(called, f"data.source: {source}")

    def identity(data: DataSpec, by_content: bool) -> Any:
        return call(plain_identity, reader.identity, data, by_content)

    def problems(data: DataSpec) -> list[str]:
        try:
            stated = call(list_of_texts, reader.problems, data)
            if not stated:
                identity(data, False)  # which a launch asks next
            return stated
        except DataError as error:
            return [str(error)]

    def look(data: DataSpec) -> Look:
        assert reader.look is not None
        try:
            return call(reader.look, data)
        except DataError as error:
            return Look(problems=[str(error)])

    def read(data: DataSpec, img_size: int) -> Content:
        return checked(f"data.source: {source}", call(reader.read, data, img_size))

    return Reader(problems=problems, identity=identity, read=read, files=reader.files, look=look if reader.look else None)


def called(where: str, function: Callable[..., Result], *given: Any) -> Result:
    """The result of a function of a plug-in. DataError with its line where it raises any other error."""
    try:
        return function(*given)
    except (DataError, OSError):
        raise
    except Exception as error:  # this is a user's code
        line, message = line_in_plugin(error), " ".join(str(error).split()) or "no message"
        raise DataError(f"{where}: {type(error).__name__}: {message}" + (f" ({line})" if line else "")) from error


def plain_identity(identity: Callable[[DataSpec, bool], Any], data: DataSpec, by_content: bool) -> Any:
    """What identifies the content. TypeError if JSON has no such values."""
    value = identity(data, by_content)
    try:
        json.dumps(value)
    except TypeError as error:
        raise TypeError(f"identity must give plain values, as JSON has them: {error}") from error
    return value


def list_of_texts(problems: Callable[[DataSpec], Any], data: DataSpec) -> list[str]:
    """What is wrong with the settings. TypeError if that is no list of texts."""
    value = problems(data)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise TypeError(f"problems must give a list of texts, got {value!r}")
    return value


def checked(where: str, content: Any) -> Content:
    """The images of a plug-in's source. DataError if they are none, or if their labels are not those of the classes."""
    if not isinstance(content, Content):
        raise DataError(f"{where}: read must give a jobs.data.content.Content, got a value of type {type(content).__name__}")
    if type(content.classes) is not int or content.classes < 2:
        raise DataError(f"{where}: classes must be a whole number, 2 or more, got {content.classes!r}")
    train, test = (checked_part(f"{where}: {name}", part, content.classes) for name, part in (("train", content.train), ("test", content.test)))
    return replace(content, train=train, test=test)


def checked_part(where: str, part: Any, classes: int) -> Part:
    """The training or test images; each image is checked when it is asked for."""
    if not isinstance(part, Part):
        raise DataError(f"{where} must be a jobs.data.content.Part, got a value of type {type(part).__name__}")
    labels = np.asarray(part.labels)
    if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{where}: labels must be an array of whole numbers, one for each image, got {labels.dtype} of shape {labels.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{where}: labels must be from 0 to {classes - 1}, for {classes} classes, got {labels.min()} to {labels.max()}")

    def image(sample: int) -> Any:
        pixels = called(where, part.image, sample)
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            got = f"{pixels.dtype} of shape {pixels.shape}" if isinstance(pixels, np.ndarray) else f"a value of type {type(pixels).__name__}"
            raise DataError(f"{where}: image {sample} must be an array (H, W, 3) of uint8, got {got}")
        return pixels

    return replace(part, labels=labels, image=image)
