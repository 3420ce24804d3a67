"""The raw data sets again and again, so that a large build can be timed.

Needs: nothing but Python 3.11.
Usage: python repeat_raw.py RAW OUT TIMES
Writes OUT/<folder>/<file>, uncompressed: the rows of RAW's files TIMES times over, header lines once. Most raw ids hold the line
number, so repeated rows are new rows to the builder; rows whose id is a hash of their text merge again. Files whose rows refer
to one another by number are copied once. Build from OUT with `deduplicate = false`.
"""
import gzip
import json
import pathlib
import sys

ONCE = {"Train_reviews.csv", "Train_labels.csv", "dev_question.txt", "dev_answer.txt", "label_names_inferred.json"}
SEPARATE = {"jd_title_ner", "taobao_ner"}  # sentences end with a blank line


def main():
    raw, out, times = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
    size = 0
    for path in sorted(p for p in raw.rglob("*") if p.is_file()):
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        target = out / path.relative_to(raw).with_suffix("" if path.suffix == ".gz" else path.suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        head = b""
        if target.name in ONCE:
            body, n = text, 1
        elif target.suffix == ".json" and text.lstrip()[:1] == b"[":
            body, n = json.dumps(json.loads(text) * times, ensure_ascii=False).encode(), 1
        else:
            n = times
            if target.suffix in (".csv", ".tsv") and b"\n" in text and target.parent.name != "laptop_acos":
                head, text = text.split(b"\n", 1)
                head += b"\n"
            body = text if text.endswith(b"\n") else text + b"\n"
            if target.parent.name in SEPARATE and not body.endswith(b"\n\n"):
                body += b"\n"
        with target.open("wb") as file:
            file.write(head)
            for _ in range(n):
                file.write(body)
        size += target.stat().st_size
    print(f"{size / 1e6:.1f} MB")


main()
