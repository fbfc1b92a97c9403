"""Write examples/bicycle-counters.pdf, byte for byte the same at each run, without any library."""

import textwrap
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "examples" / "bicycle-counters.pdf"
WIDTH, LINES = 88, 46

TEXT = """\
Counting bicycles in Halmby: a field report

Halmby wanted to know how many people ride bicycles and where they are slowed down. From May 2023 to
April 2024 the traffic office ran 14 counters on the main streets. This report says what was counted, what
went wrong and what the office proposes.

How the counting was done

Ten counters were induction loops in the road, four were cameras with local image processing. No picture left
a camera; only the number of bicycles in each quarter of an hour was sent. The loops cost 2,300 euros each
with the work in the road, the cameras 4,100 euros each. Anna Lindqvist of the traffic office and two students
of the university checked every counter on three mornings by hand. The loops missed 4 percent of the bicycles
on average, mostly when two rode side by side. The cameras missed 9 percent in rain and 3 percent in dry
weather.

What was counted

In twelve months the counters saw 3.86 million passages. The busiest place was the Station Bridge with 6,420
bicycles on an average working day in June. In January the same bridge had 2,150. On Sundays the numbers were
38 percent lower than on working days in every month. Between 7 and 9 in the morning 41 percent of a day's
bicycles came into the centre, and 63 percent of them came over only three streets.

The new lane on Mill Street was opened on 1 September 2023. In the two months before, 1,180 bicycles a day
were counted there; in the same months a year later 2,040. On the parallel Garden Street the count fell by
310 a day, so more than half of the growth was new traffic and not traffic that moved over.

What slows people down

The loops measure speed as well. At the crossing of Mill Street and Ring Road the average speed fell from 17 to 6
kilometres an hour, and bicycles waited 48 seconds on average. At the Station Bridge they waited 9 seconds. The
fire brigade reported no delay caused by the new lane. In the twelve months the police recorded 57 accidents
with bicycles, 11 fewer than in the year before; 19 of them happened at the crossing of Mill Street and Ring Road.

What went wrong

Two loops were destroyed by roadworks in October 2023 and were silent for 26 days. One camera on Garden Street
was turned by the wind and counted pedestrians for 5 days; these days are left out of every figure above. The
software of the cameras had to be updated twice, and the second update changed the counts by 2 percent until
it was corrected in March 2024.

What the traffic office proposes

The traffic lights at Mill Street and Ring Road should be green for bicycles 12 seconds longer; this costs
nothing but the change of a program. A second lane over the Station Bridge would cost 1.3 million euros and
should be planned in 2025. The counters should stay: they cost 21,000 euros a year, and four more on the way to
the hospital would cost 9,200 euros once. The council of Halmby will discuss the report on 12 June 2024.
"""


def pages() -> list[list[str]]:
    lines: list[str] = []
    for paragraph in TEXT.split("\n\n"):
        lines += [*textwrap.wrap(" ".join(paragraph.split()), WIDTH), ""]
    return [lines[start : start + LINES] for start in range(0, len(lines), LINES)]


def content(lines: list[str]) -> bytes:
    rows = "\n".join(f"({line.replace('(', '').replace(')', '')}) Tj T*" for line in lines)
    return f"BT /F1 11 Tf 15 TL 56 780 Td\n{rows}\nET".encode("ascii")


def build() -> bytes:
    sheets = pages()
    first = 4
    kids = " ".join(f"{first + 2 * number} 0 R" for number in range(len(sheets)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(sheets)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for number, lines in enumerate(sheets):
        stream = content(lines)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {first + 2 * number + 1} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    info = b"<< /Title (Counting bicycles in Halmby: a field report) /Producer (make_example_pdf) >>"
    objects.append(info)
    output = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(output))
        output += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(output)
    output += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    output += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    output += b"trailer\n<< /Size %d /Root 1 0 R /Info %d 0 R >>\n" % (len(objects) + 1, len(objects))
    output += b"startxref\n%d\n%%%%EOF\n" % start
    return bytes(output)


if __name__ == "__main__":
    TARGET.write_bytes(build())
