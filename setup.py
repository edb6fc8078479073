"""The part of the build that pyproject.toml cannot say: the optional C extension."""

from setuptools import setup

setup(
    cffi_modules=[
        "bwpool/convert/_dither_build.py:ffibuilder",
        "bwpool/convert/_g4_build.py:ffibuilder",
    ]
)
