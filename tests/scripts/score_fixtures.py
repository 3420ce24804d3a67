"""Scores of the released EcomGPT evaluation sets by the released scoring rules, as fixtures for `score::legacy`.

The rules are written down anew here on top of the two packages the released scorer uses:

    python3 -m venv venv && venv/bin/pip install rouge==1.0.1 seqeval==1.2.2
    venv/bin/python tests/scripts/score_fixtures.py DATA/ecominstruct_eval tests/fixtures/score

Written: `released.json` (scores only, no text of the data) for the gold answers, a constant and 200 seeded corruptions
of every folder, and `synthetic.json` (own made-up items with texts, predictions and scores) for machines without data.
Where the packages raise (an answer that is empty or all full stops) an item's ROUGE is 0 and it counts as undefined.
"""

import json
import sys
import warnings
from pathlib import Path

from rouge import Rouge
from seqeval.metrics import classification_report

warnings.filterwarnings("ignore")
ROUGE = Rouge(metrics=["rouge-l"])
MASK = (1 << 64) - 1
FIELDS = ["micro_p", "micro_r", "micro_f1", "macro_p", "macro_r", "macro_f1", "accuracy", "rouge_l", "undefined"]
CORRUPTIONS, WINDOW = 200, 100


class SplitMix:
    def __init__(self, state):
        self.state = state & MASK

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def below(self, n):
        return self.next() % n


def corrupt(answer, golds, seed, item):
    """At most three edits of one answer; the Rust test has the same function."""
    rng = SplitMix(seed * 1000003 + item)
    for _ in range(rng.below(4)):
        edit = rng.below(10)
        if edit == 0:
            parts = answer.split(", ")
            del parts[rng.below(len(parts))]
            answer = ", ".join(parts)
        elif edit == 1:
            parts = answer.split(", ")
            i, j = rng.below(len(parts)), rng.below(len(parts))
            parts[i], parts[j] = parts[j], parts[i]
            answer = ", ".join(parts)
        elif edit == 2:
            answer = golds[rng.below(len(golds))]
        elif edit == 3:
            answer = "".join(c.upper() if "a" <= c <= "z" else c for c in answer)
        elif edit == 4:
            at = rng.below(len(answer) + 1)
            answer = answer[:at] + "." + answer[at:]
        elif edit == 5:
            answer = "None"
        elif edit == 6:
            answer = answer[: rng.below(len(answer) + 1)]
        elif edit == 7:
            answer = answer + ", " + golds[rng.below(len(golds))]
        elif edit == 8:
            lines = answer.split("\n")
            turn = rng.below(len(lines))
            answer = "\n".join(lines[turn:] + lines[:turn])
        else:
            at = rng.below(len(answer) + 1)
            answer = answer[:at] + (" ", "\n", ": ")[rng.below(3)] + answer[at:]
    return answer


def rouge_l(predictions, golds):
    total, undefined = 0.0, 0
    for prediction, gold in zip(predictions, golds):
        try:
            total += ROUGE.get_scores([prediction], [gold], avg=True)["rouge-l"]["f"]
        except ValueError:
            undefined += 1
    return total / len(golds), undefined


def set_scores(predictions, golds):
    correct = predicted = wanted = same = 0
    precision = recall = 0.0
    for p, g in zip(map(set, predictions), map(set, golds)):
        both = len(p & g)
        correct, predicted, wanted, same = correct + both, predicted + len(p), wanted + len(g), same + (p == g)
        if p and g:
            precision += both / len(p)
            recall += both / len(g)
    n = len(golds)
    micro = (correct / predicted, correct / wanted) if predicted and wanted else (0.0, 0.0)
    return [*prf(*micro), *prf(precision / n, recall / n), same / n]


def prf(p, r):
    return p, r, 2 * p * r / (p + r) if p + r else 0.0


def typed_lines(answer):
    types = {}
    for line in answer.split("\n"):
        kind, colon, values = line.partition(": ")
        if colon and not line.endswith(": "):
            types.setdefault(kind, set()).update(values.split(", "))
    return types


def paint(text, types):
    tags = ["O"] * len(text)
    for kind, values in types.items():
        # The released scorer walks a set here, so its order changes from run to run. Ours: short ones first.
        for value in sorted(values, key=lambda v: (len(v), v)):
            if value == "None":
                continue
            for at in range(len(text)):
                if text.startswith(value, at):
                    tags[at] = "B-" + kind
                    for inside in range(at + 1, at + len(value)):
                        tags[inside] = "I-" + kind
    return tags


def score(kind, texts, golds, raw):
    if kind == "CLS":
        seen = [r.strip().replace(".", "") if r else "error" for r in raw]
        sets = set_scores([s.split(", ") if s else "error" for s in seen], [g.split(", ") if g else "error" for g in golds])
    elif kind == "Extract":
        seen = [r if r.replace(".", "").strip() else "error" for r in raw]
        sets = set_scores([s.strip().split(", ") for s in seen], [g.strip().split(", ") for g in golds])
    elif kind == "Condition_Extract":
        seen = [r if len(r.strip()) > 1 else "error" for r in raw]
        golds = [g or "error" for g in golds]
        sets = set_scores([s.split(", ") for s in seen], [g.split(", ") for g in golds])
    elif kind == "Generate":
        seen = [r or "error" for r in raw]
        sets = set_scores([s.strip() for s in seen], [g.strip() for g in golds])
    else:
        seen = [r or "error" for r in raw]
        true = [paint(t, typed_lines(g)) for t, g in zip(texts, golds)]
        pred = [paint(t, typed_lines(s)) for t, s in zip(texts, seen)]
        if all(tag == "O" for tags in true + pred for tag in tags):
            sets = [0.0] * 6 + [None]
        else:
            report = classification_report(true, pred, output_dict=True)
            names = [(a, b) for a in ("micro avg", "macro avg") for b in ("precision", "recall", "f1-score")]
            sets = [float(report[a][b]) for a, b in names] + [None]
    mean, undefined = rouge_l(seen, golds)
    return [None if s is None else 100 * s for s in [*sets, mean]] + [undefined]


def load(folder):
    meta = json.loads((folder / "meta-info.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (folder / "test.json").read_text(encoding="utf-8").split("\n") if line.strip()]
    kind = folder.name.split("-")[2]
    golds = []
    for row in rows:
        if kind == "CLS":
            golds.append(meta["label_sep"].join(row["labels"][meta["label_key"]]))
        elif kind == "NER":
            by_type = {}
            for span in row["spans"]:
                by_type.setdefault(span["type"], []).append(span["term"])
            labels = meta["label_set"][meta["label_key"]]
            golds.append("\n".join(f"{t}: " + ", ".join(by_type.get(t, ["None"])) for t in labels))
        else:
            golds.append(", ".join(span["term"] for span in row["spans"]))
    return kind, [row["sentences"] for row in rows], golds


SYNTHETIC = {
    "CLS": [
        ("The soup was cold.", "Food", ["Food", "food", "Food.", " Food \n", "", ".", "Price", "Food, Price", "Food, Food"]),
        ("Slow waiter, dear wine.", "Service, Price", ["Price, Service", "Service,Price", "Service", "None", "  "]),
        ("蓝色棉质衬衫", "服饰", ["服饰", "服饰。", "食品", "服 饰"]),
    ],
    "Extract": [
        ("Context: It runs at 5 V. Use a fuse.\nQuestion: Voltage?", "5 V", ["5 V", "5 V.", "at 5 V", "...", " 5 V", ""]),
        ("Context: a b c. d e f. a c e", "a b c. d e f", ["d e f. a b c", "a c. e f. b d", "a a b. c c", "a b c d e f", ". a"]),
        ("which way round", "a b", ["b a. b c", "a\x1cb", "\x1f", "a b\u3000", "a. b. ", " . a b"]),
        ("Query: 跑鞋\nCandidate Document: 男士跑鞋, 木桌.", "男士跑鞋", ["男士跑鞋", "木桌", "男士跑鞋, 木桌"]),
    ],
    "Condition_Extract": [
        ("红色丝绸围巾", "红, 丝绸", ["红, 丝绸", "丝绸", "红", " ", "丝绸, 红", "..", "红,丝绸", ""]),
        ("绿茶", "绿", ["绿", "绿茶", "error"]),
        ("no values here", "", ["", "error", "None"]),
    ],
    "Generate": [
        ("brand: Acme; colour: red", "Acme Red Chair", ["Acme Red Chair", "Red chair by Acme", "", "...", " ", "Acme. Red. Chair."]),
        ("品牌#:#星河#;#颜色#:#白", "星河白色台灯", ["星河白色台灯", "白色台灯", "白 色 台 灯", "None"]),
    ],
    "NER": [
        (
            "Acme X1 red lamp and Acme red-light lamp",
            "Brand: Acme\nColour: red, red-light\nSize: None",
            [
                "Brand: Acme\nColour: red, red-light\nSize: None",
                "Colour: red-light, red\nBrand: Acme",
                "Brand: Acme\nBrand: X1\nColour: ",
                "Brand: Acme, \nOdd-Type: lamp",
                ": lamp\n_: X1\nBrand: lamp",
                "Brand:Acme\nColour: None",
                "Brand: Acme: \nColour: red: ",
                "Brand: Acme: X1\nColour: red lamp, lamp and",
                "",
                ".",
            ],
        ),
        ("aaa baab", "T: aa\nU: b", ["T: aa\nU: b", "U: b\nT: aa", "T: a, aa, aaa\nU: aab", "U: ab\nV: ba", " T: aa"]),
        ("红色丝绸围巾", "颜色: 红色\n材质: 丝绸\n品牌: None", ["颜色: 红色\n材质: None\n品牌: 丝绸", "颜色：红色", "材质: 丝绸围巾, 丝绸"]),
    ],
}


def main(data, out):
    out.mkdir(parents=True, exist_ok=True)
    sets = []
    for kind, items in SYNTHETIC.items():
        rows = [(text, gold, p) for text, gold, predictions in items for p in predictions]
        alone = [score(kind, [t], [g], [p]) for t, g, p in rows]
        together = score(kind, *map(list, zip(*rows)))
        sets.append({"kind": kind, "rows": [[*r, s] for r, s in zip(rows, alone)], "together": together})
    synthetic = {"packages": "rouge 1.0.1, seqeval 1.2.2", "fields": FIELDS, "sets": sets}
    (out / "synthetic.json").write_text(json.dumps(synthetic, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    folders = {}
    for folder in sorted(data.glob("*/tasks/*")):
        kind, texts, golds = load(folder)
        n = len(golds)
        entry = {"gold": score(kind, texts, golds, golds), "constant": score(kind, texts, golds, [golds[0]] * n)}
        entry["corrupted"] = []
        for seed in range(CORRUPTIONS):
            picked = [(seed * 37 + i) % n for i in range(min(WINDOW, n))]
            predictions = [corrupt(golds[i], golds, seed, i) for i in picked]
            entry["corrupted"].append(score(kind, [texts[i] for i in picked], [golds[i] for i in picked], predictions))
        folders[folder.name] = entry
        print(folder.name, [None if s is None else round(s, 2) for s in entry["gold"]], flush=True)
    lines = [json.dumps(name) + ":" + json.dumps(entry, separators=(",", ":")) for name, entry in folders.items()]
    head = {"packages": "rouge 1.0.1, seqeval 1.2.2", "fields": FIELDS, "corruptions": CORRUPTIONS, "window": WINDOW}
    text = json.dumps(head)[:-1] + ', "folders": {\n' + ",\n".join(lines) + "\n}}\n"
    json.loads(text)
    (out / "released.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
