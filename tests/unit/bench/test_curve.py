from xml.etree import ElementTree

from gbgw.bench.curve import HEIGHT, LEFT, RIGHT, TOP, WIDTH, Line, svg


def test_points_stand_where_they_belong() -> None:
    text = svg(
        "A & B",
        "across",
        "up",
        [Line("one <1>", [(0, 0), (5, 50), (10, 100)], "#123"), Line("two", [(0, 1)], "#456", True)],
    )
    root = ElementTree.fromstring(text)
    lines = [node for node in root.iter() if node.tag.endswith("polyline")]
    assert len(lines) == 2
    points = [tuple(map(float, pair.split(","))) for pair in lines[0].attrib["points"].split()]
    assert points[0][0] == LEFT
    assert points[2] == (WIDTH - RIGHT, TOP)
    assert points[1][0] == (points[0][0] + points[2][0]) / 2
    assert points[0][1] > points[1][1] > points[2][1]
    assert "stroke-dasharray" in lines[1].attrib
    words = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert {"A & B", "across", "up", "one <1>", "two"} <= set(words)
    assert all(0 <= float(node.attrib["y"]) <= HEIGHT for node in root.iter() if "y" in node.attrib)
