"""Print notebooks to PDF and make what each course wants handed in."""

from submission.printer import Page, PrintError, TypstPDFExporter, to_pdf

__all__ = ["Page", "PrintError", "TypstPDFExporter", "to_pdf"]
