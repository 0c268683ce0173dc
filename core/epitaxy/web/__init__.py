"""Databases over the network: one polite, caching, distrustful client for all of them."""

from epitaxy.web.attempts import RefusedError
from epitaxy.web.client import Answer, Client
from epitaxy.web.clock import SYSTEM_CLOCK, Clock
from epitaxy.web.left_out import LeftOut
from epitaxy.web.pages import Page, pages

__all__ = ["SYSTEM_CLOCK", "Answer", "Client", "Clock", "LeftOut", "Page", "RefusedError", "pages"]
