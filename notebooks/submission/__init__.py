"""Print notebooks to PDF and build what each course wants handed in."""

from submission.printer import Page, PrintError, TypstPDFExporter, read_notebook, to_pdf

__all__ = ["Page", "PrintError", "TypstPDFExporter", "read_notebook", "to_pdf"]
