"""Files that people have, as rows of text cells: the one way in for bills, logs and traces.

`Source` unpacks a file by its first bytes, `tables` finds its columns, and a table's rows are
streamed. `read_bill` reads them through a mapping, and checks them all. Memory hardly grows with
the file.
"""
