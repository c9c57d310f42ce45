"""``NAME:KEY=VALUE,...``: what is understood, and how everything else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from invrestore.cli._catalogue import OPERATORS
from invrestore.cli._specs import parse
from invrestore.errors import DTypeError, RangeError, UnknownNameError


def operator(text):
    return parse("--operator", text, OPERATORS)


def test_name_alone_and_options_with_their_types():
    assert operator("identity").options == {}
    assert operator(" Blur: sigma = 1.6 , padding=reflect ").options == {"sigma": 1.6, "padding": "reflect"}
    assert operator("downsample:factor=4").options == {"factor": 4}
    assert operator("blur:kernel=folder/k.png").options == {"kernel": Path("folder/k.png")}


def test_colons_may_stand_in_values():
    assert operator("jpeg:quality=10,subsampling=4:4:4").options == {"quality": 10, "subsampling": "4:4:4"}


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("blurr:sigma=1", UnknownNameError, r"operator out of .*Did you mean 'blur'\?"),
        ("", UnknownNameError, "got ''"),
        (
            "blur:sigmaa=2",
            UnknownNameError,
            r"options out of sigma, disk.*got 'sigmaa'\. Did you mean sigma\?",
        ),
        ("grayscale:x=1", UnknownNameError, "no options"),
        ("blur:sigma", RangeError, "sigma=VALUE"),
        ("blur:sigma=", RangeError, "sigma=VALUE"),
        ("blur:sigma=wide", DTypeError, "sigma to be a number such as 1.6 or 2e-3, got 'wide'"),
        ("jpeg:quality=9.5", DTypeError, "whole number, got '9.5'"),
        ("blur:sigma=1,padding=mirror", DTypeError, "one of circular, reflect.*got 'mirror'"),
        ("blur:sigma=1,sigma=2", RangeError, "sigma once"),
        ("blur", RangeError, r"one of sigma, disk, box, kernel, got none\. For example blur:sigma="),
        ("blur:sigma=1,disk=2", RangeError, "got sigma and disk"),
        ("downsample", RangeError, "the option factor"),
    ],
)
def test_everything_else_is_refused(text, error, match):
    with pytest.raises(error, match=match):
        operator(text)
