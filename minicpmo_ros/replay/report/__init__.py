"""The timeline report: one recorded conversation as a page, a picture or lines in a terminal."""

from minicpmo_ros.replay.report.builder import ReportBuilder, ReportLimits
from minicpmo_ros.replay.report.view import ReportView

__all__ = ["ReportBuilder", "ReportLimits", "ReportView"]
