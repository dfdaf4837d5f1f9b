"""Builds the wheel. If the package contains the library (build_wheel.py), the wheel is for one platform."""

import os

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel

# Set by build_wheel.py. Without it, the wheel has no library, and uses one that is installed in the system.
PLATFORM = os.environ.get("NUCLEUS_WHEEL_PLATFORM")


class PlatformDistribution(Distribution):
    def has_ext_modules(self):
        return True


class PlatformWheel(bdist_wheel):
    def get_tag(self):
        return "py3", "none", PLATFORM


setup(**({"distclass": PlatformDistribution, "cmdclass": {"bdist_wheel": PlatformWheel}} if PLATFORM else {}))
