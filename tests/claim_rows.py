"""Rows of claims as the page's tests need them, whatever was measured."""

from paper.claims import _row


def own_row(id, statement, measured, holds=True, *, unit="", interval=None, threshold=None):
    """A row about a bar of our own with a chosen verdict."""
    verdict = "pass" if holds else "fail"
    return _row(id, statement, None, measured, unit, interval, threshold, verdict)
