"""The report as one self-contained HTML page.

``payload`` turns scans into columns, ``page`` puts columns, plotting library, style and code into one file. The code of
the page lies in ``assets``; it decides nothing that Python decides too, except the selection at a moving cut, and
``tests/use/report/html`` holds that to :func:`spectrum_fast.choose.selection.select.select_with`.
"""
