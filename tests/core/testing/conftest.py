"""Packs to test the kit with, installed into a folder on sys.path."""

from __future__ import annotations

from tests.core.registry.conftest import site, unloaded

__all__ = ["site", "unloaded"]
