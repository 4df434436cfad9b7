from geoseg.io.tables import align_columns, write_table


def test_numbers_are_written_alike_and_bars_do_not_begin_a_cell():
    table = write_table(("scene", "IoU", "px"), [["a|b", 0.51234, 12_345], ["c", float("nan"), 7]])
    assert table.splitlines() == [
        "| scene | IoU | px |",
        "| --- | --- | --- |",
        "| a\\|b | 0.5123 | 12,345 |",
        "| c | - | 7 |",
    ]


def test_cells_are_padded_to_the_widest_of_their_column():
    assert write_table(("a", "b"), [["long name", "1"]], align=True).splitlines() == [
        "| a         | b   |",
        "| ---       | --- |",
        "| long name | 1   |",
    ]
    assert align_columns([("a", "b", "c"), ("long name", "1", "")]) == "a          b  c\nlong name  1"
