"""Reading of bills, logs and traces in many formats, as rows of text cells.

`source` unpacks a file by its first bytes, `tables` finds its columns, and a table's rows are
streamed. `read_bill` reads them through a mapping, and checks every line. Memory hardly grows with
the file.
"""
