"""Instruction records from real e-commerce data, as a stop-gap until the project's own builder reads these sources.

Needs: nothing but Python 3.11.
Usage: python real_data.py --data DATA --out DIR [--seed 0] [--cap 3000]
DATA holds `raw/<source>/`. Writes DIR/train.jsonl and DIR/heldout.jsonl (records as `ecominstruct::Instruction` reads
them, templates from real_data_templates.json) and DIR/text.txt (the training side's text, for a tokenizer), and prints
counts and lengths. The split is by group (product, cluster, query, sentence or review), decided by a hash before
anything is drawn; no input of one side occurs on the other, though a product may be shown for searches of both. `heldout.jsonl`
keeps 60 records a task. The same seed gives the same bytes.
"""
import argparse
import csv
import gzip
import hashlib
import json
import pathlib
import random
import statistics
from collections import Counter, defaultdict

HELDOUT_PER_TASK = 60
LONGEST = {"en": 420, "zh": 160}  # characters of input
# task -> paradigm, description, constraint and paraphrases
TASKS = json.loads((pathlib.Path(__file__).parent / "real_data_templates.json").read_text(encoding="utf-8"))
# label words by language of the prompt; several pairs for two-way tasks, so that no word carries the prior
POLARITY = {"en": [("positive", "negative"), ("satisfied", "unhappy")], "zh": [("正面", "负面"), ("满意", "差评")]}
SENTIMENT = {"Positive": {"en": "positive", "zh": "正面"}, "Negative": {"en": "negative", "zh": "负面"},
             "Neutral": {"en": "neutral", "zh": "中性"}}
# None is part of another, so that a partly right string earns nothing.
SAME = [("same", "different"), ("identical", "distinct")]
FITS = [("consistent", "contradictory"), ("fits", "clashes")]
RELEVANT = [("relevant", "off-topic"), ("suitable", "wrong")]


class Builder:
    """Collects records; `side` is fixed per group, so both sides are built by the same code."""

    def __init__(self, data, seed, cap):
        self.raw, self.seed, self.cap = data / "raw", seed, cap
        self.units = defaultdict(list)  # (task, source, side) -> records
        self.seen = set()

    def open(self, source, name):
        path = self.raw / source / name
        return (gzip.open if name.endswith(".gz") else open)(path, "rt", encoding="utf-8", newline="")

    def table(self, source, name):
        with self.open(source, name) as f:
            return list(csv.DictReader(f))

    def hash(self, *parts):
        return int.from_bytes(hashlib.sha256(repr((self.seed,) + parts).encode()).digest()[:8], "big")

    def heldout(self, group):
        return self.hash("side", group) < 0.06 * 2**64

    def add(self, task, source, lang, dtype, group, raw_id, text, answer, candidates=(), aspect=""):
        """One record. `answer` and `candidates` may be functions of the prompt's language."""
        spec = TASKS[task]
        rng = random.Random(self.hash(task, source, raw_id))
        spoken = "zh" if lang == "zh" and spec["zh"] and rng.random() < 0.2 else "en"
        candidates = candidates(spoken, rng) if callable(candidates) else list(candidates)
        gold = answer(spoken, candidates) if callable(answer) else answer
        text = text if "\n" in text else " ".join(text.split())
        key = (task, text, aspect, json.dumps(gold, ensure_ascii=False))
        if gold is None or len(text) > LONGEST[lang] or key in self.seen:
            return
        self.seen.add(key)
        templates = spec[spoken]
        which = rng.randrange(len(templates))
        (kind, value), = gold.items()
        if kind == "entities":
            by_type = {c: [e["text"] for e in value if e["type"] == c] for c in candidates}
            output = "\n".join(f"{c}: {', '.join(v) or 'None'}" for c, v in by_type.items())
        else:
            output = value if kind == "text" else ", ".join(value) or "None"
        parents = {"A01": ["F01"], "A03": ["F02"]}.get(task, [])
        record = {"id": f"{task}-{source}-{raw_id}-{spoken}{which + 1}", "task": task, "parents": parents,
                  "kind": "atomic" if parents else "final", "strategy": "S" if parents else "none",
                  "dtype": dtype, "paradigm": spec["paradigm"], "lang": lang, "prompt_lang": spoken, "source": source,
                  "source_split": "", "raw_ids": [str(raw_id)], "group": f"{source}:{group}",
                  "description": spec["description"],
                  "prompt": templates[which].format(labels=", ".join(candidates), aspect=aspect), "input": text,
                  "candidates": candidates, "constraint": spec["constraint"][spoken], "output": output, "gold": gold,
                  "template_id": f"{task}-{spoken}-{which + 1}", "n_candidates": len(candidates), "format_twin": False}
        self.units[task, source, self.heldout(group)].append(record)

    def pair_label(self, task, source, group, raw_id, text, positive, words):
        """A two-way question whose label words change from record to record."""
        pair = words[self.hash("pair", task, raw_id) % len(words)]
        dtype, gold = "Q" if task == "F30" else "P", {"labels": [pair[0 if positive else 1]]}
        self.add(task, source, "en", dtype, group, raw_id, text, gold, lambda _l, r: r.sample(pair, 2))

    def classify(self, task, source, lang, dtype, group, raw_id, text, gold, labels, low, high):
        """Labels out of low..high candidates: the gold ones and others of `labels`, shuffled."""
        def candidates(_language, rng):
            others = [x for x in labels if x not in gold]
            extra = rng.sample(others, min(len(others), max(1, rng.randint(low, high) - len(gold))))
            return rng.sample(gold + extra, len(gold) + len(extra))
        answer = lambda _l, shown: {"labels": [c for c in shown if c in gold]}
        self.add(task, source, lang, dtype, group, raw_id, text, answer, candidates)


def polarity(b):
    def add(source, i, text, positive):
        index = b.hash("words", source, i) % 2
        answer = lambda l, _c: {"labels": [POLARITY[l][index][0 if positive else 1]]}
        b.add("F12", source, "zh", "R", text, i, text, answer, lambda l, r: r.sample(POLARITY[l][index], 2))
    rows = b.table("online_shopping_reviews", "online_shopping_20k.csv.gz")
    kinds = sorted({r["cat"] for r in rows})
    for i, r in enumerate(rows):
        add("online_shopping_reviews", i, r["review"], r["label"] == "1")
        b.classify("F03", "online_shopping_reviews", "zh", "R", r["review"], i, r["review"], [r["cat"]], kinds, 4, 9)
    for i, r in enumerate(b.table("waimai_reviews", "waimai_10k.csv.gz")):
        add("waimai_reviews", i, r["review"], r["label"] == "1")


def bio(b, source, name):
    """(text, [(type code, span)]) per title; the tag follows the last space, since a space is a token too."""
    out, chars, spans, open_type = [], [], [], None
    with b.open(source, name) as f:
        for line in [*f, "\n"]:
            line = line.rstrip("\r\n")
            if not line:
                if chars:
                    out.append(("".join(chars), [(t, "".join(s).strip()) for t, s in spans]))
                chars, spans, open_type = [], [], None
                continue
            char, tag = line.rsplit(" ", 1)
            chars.append(char)
            if tag.startswith("I-") and open_type == tag[2:]:
                spans[-1][1].append(char)
            elif tag != "O":
                spans.append((tag[2:], [char]))
            open_type = None if tag == "O" else tag[2:]
    return out


def entities(b, source, names, titles):
    for i, (text, spans) in enumerate(titles):
        spans = list(dict.fromkeys((names[t], s) for t, s in spans if t in names and s and "," not in s))
        # A title's own spacing may have been squeezed; only spans that can still be copied count.
        spans = [(t, s) for t, s in spans if s in " ".join(text.split())]
        if not spans:
            continue

        def types(language, rng, spans=spans):
            present = list(dict.fromkeys(t for t, _ in spans))
            shown = rng.sample(present, min(len(present), rng.randint(1, 4)))
            absent = [t for t in names.values() if t not in present]
            shown += rng.sample(absent, min(len(absent), rng.randint(0, 3)))
            return [t[language == "zh"] for t in rng.sample(shown, len(shown))]

        def typed(language, shown, spans=spans):
            named = [(t[language == "zh"], s) for t, s in spans]
            return {"entities": [{"type": c, "text": s} for c in shown for t, s in named if t == c]}

        def flat(language, shown, spans=spans):
            return {"spans": list(dict.fromkeys(s for t, s in spans if t[language == "zh"] in shown))}

        b.add("F01", source, "zh", "P", text, i, text, typed, types)
        b.add("A01", source, "zh", "P", text, i, text, flat, types)


def chinese_titles(b):
    names = json.loads((b.raw / "jd_title_ner" / "label_names_inferred.json").read_text(encoding="utf-8"))["names"]
    entities(b, "jd_title_ner", {k: tuple(v) for k, v in names.items()}, bio(b, "jd_title_ner", "dev_split.txt.gz"))
    names = {"HCCX": ("product", "商品"), "HPPX": ("brand", "品牌"), "XH": ("model number", "型号")}
    titles = [t for name in ("train.txt.gz", "dev.txt", "test.txt") for t in bio(b, "taobao_ner", name)]
    entities(b, "taobao_ner", names, titles)


def attributes(b, source):
    rows = []
    for part in ("train", "test"):
        with b.open(source, f"{part}.jsonl") as f:
            rows += map(json.loads, f)
    inventory, kinds, sides = defaultdict(list), sorted({r["category"] for r in rows}), {False: [], True: []}
    for i, r in enumerate(rows):
        r["id"], r["have"] = i, {}
        title = " ".join(r["input"].split())
        for name, values in r["target_scores"].items():
            inventory[r["category"]].append(name)
            found = [v for v in values if v != "n/a" and v in title and "," not in v]
            if found:
                r["have"][name] = found
        r["title"] = title
        sides[b.heldout(title)].append(r)
    inventory = {k: sorted(set(v)) for k, v in inventory.items()}
    for members in sides.values():
        for r in members:
            i, title, have = r["id"], r["title"], r["have"]
            b.classify("F03", source, "en", "P", title, i, title, [r["category"]], kinds, 4, 10)
            if not have:
                continue
            rng = random.Random(b.hash("attributes", source, i))
            absent = [a for a in inventory[r["category"]] if a not in have]
            some = lambda of, low, high: rng.sample(of, min(len(of), rng.randint(low, high)))
            shown = some(sorted(have), 1, 4) + some(absent, 0, 2)
            rng.shuffle(shown)
            filled = [{"type": a, "text": v} for a in shown for v in have.get(a, [])]
            b.add("F02", source, "en", "P", title, i, title, {"entities": filled}, shown)
            for name in some(sorted(have), 2, 2) + some(absent, 1, 1) * (i % 3 == 0):
                gold = {"spans": have.get(name, [])}
                b.add("A03", source, "en", "P", title, f"{i}.{name}", title, gold, [name], aspect=name)
            block = lambda h: "; ".join(f"{k}: {v[0]}" for k, v in h.items())
            if len(have) > 1:
                other = rng.choice([x for x in members if x["category"] == r["category"] and x["have"]])
                positive = i % 2 == 0 or other["title"] == title
                text = f"Title: {title}\nAttributes: {block(have if positive else other['have'])}"
                b.pair_label("F06", source, title, i, text, positive, FITS)
            if len(have) > 2 and source == "oa_mine_attributes":
                b.add("F07", source, "en", "P", title, i, block(have), {"text": title})


def english_products(b):
    offers = b.table("pricerunner_categories", "pricerunner_20k.csv.gz")
    kinds, clusters = sorted({r["category_label"] for r in offers}), defaultdict(list)
    for i, r in enumerate(offers):
        r["id"] = i
        clusters[r["cluster_id"]].append(r)
        b.classify("F03", "pricerunner_categories", "en", "P", r["cluster_id"], i, r["product_title"],
                   [r["category_label"]], kinds, 4, 10)
    shelves = defaultdict(list)
    for key, members in clusters.items():
        shelves[members[0]["category_label"], b.heldout(key)].append(members)
    for _key, shelf in sorted(shelves.items()):
        for n, members in enumerate(shelf):
            if len(members) < 2 or len(shelf) < 2:
                continue
            rng = random.Random(b.hash("pricerunner", members[0]["id"]))
            first, second = rng.sample(members, 2)
            near = shelf[n - 1] if n else shelf[1]  # neighbours in the file are alike
            for positive, other in ((True, second), (False, near[0])):
                b.pair_label("F05", "pricerunner_categories", members[0]["cluster_id"], f"{first['id']}.{other['id']}",
                             f"A: {first['product_title']}\nB: {other['product_title']}", positive, SAME)


def aspects(b, source, lang, files):
    sentences = defaultdict(dict)
    for name in files:
        with b.open(source, name) as f:
            lines = [x.strip() for x in f]
        for template, aspect, label in zip(lines[::3], lines[1::3], lines[2::3]):
            clean = (lambda x: x.replace(" ", "")) if lang == "zh" else (lambda x: " ".join(x.split()))
            sentences[clean(template.replace("$T$", aspect))][clean(aspect)] = label
    for i, (text, found) in enumerate(sentences.items()):
        for j, (aspect, label) in enumerate(found.items()):
            answer = lambda l, _c, x=label: {"labels": [SENTIMENT[x][l]]}
            b.add("F16", source, lang, "R", text, f"{i}.{j}", text, answer,
                  lambda l, r: r.sample([s[l] for s in SENTIMENT.values()], 3), aspect=aspect)
        if all(a in text and "," not in a for a in found):
            b.add("F15", source, lang, "R", text, i, text, {"spans": sorted(found, key=text.find)})


def topics(b):
    names = lambda c: c.split("#")[0].lower().replace("_", " ")
    rows = []
    for part in ("train", "dev", "test"):
        with b.open("laptop_acos", f"laptop_quad_{part}.tsv") as f:
            rows += [line.rstrip("\n").split("\t") for line in f]
    gold = [list(dict.fromkeys(names(q.split()[1]) for q in r[1:])) for r in rows]
    common = sorted(k for k, n in Counter(sum(gold, [])).items() if n > 15)
    for i, (r, labels) in enumerate(zip(rows, gold)):
        if all(x in common for x in labels):
            b.classify("F14", "laptop_acos", "en", "R", r[0], i, r[0], labels, common, 5, 9)
    texts = {r["id"]: r["Reviews"] for r in b.table("cosmetics_reviews", "Train_reviews.csv")}
    found = defaultdict(list)
    for r in b.table("cosmetics_reviews", "Train_labels.csv"):
        if r["id"] in texts and r["Categories"] not in found[r["id"]]:
            found[r["id"]].append(r["Categories"])
    kinds = sorted(set(sum(found.values(), [])))
    for i, labels in found.items():
        b.classify("F14", "cosmetics_reviews", "zh", "R", texts[i], i, texts[i], labels, kinds, 5, 10)


def questions(b):
    for domain in ("electronics", "grocery"):
        for part in ("train", "dev", "test"):
            for i, r in enumerate(b.table("subjqa", f"{domain}_{part}.csv.gz")):
                answer = " ".join(r["human_ans_spans"].split())
                review = " ".join(r["review"].replace("ANSWERNOTFOUND", "").split())
                at = review.find(answer)
                if at < 0 or len(answer) > 120 or "," in answer:
                    continue
                start = max(0, at - 120 - b.hash("window", r["item_id"], i) % 80)  # reviews are long: cut a window
                window = review[start: start + 340]
                window = window if start == 0 else window.partition(" ")[2]
                if answer in window:
                    text = f"{window}\nQuestion: {r['question']}"
                    b.add("F19", "subjqa", "en", "R", r["item_id"], f"{domain}.{part}.{i}", text, {"spans": [answer]})


def searches(b):
    rows, queries = b.table("home_depot_search", "train_20k.csv.gz"), defaultdict(list)
    for i, r in enumerate(rows):
        queries[r["search_term"]].append((float(r["relevance"]), i, r["product_title"]))
    sides = {s: [r for r in rows if b.heldout(r["search_term"]) == s] for s in (False, True)}
    for query, hits in queries.items():
        rng = random.Random(b.hash("query", query))
        members = sides[b.heldout(query)]
        hits.sort()
        good = [t for s, _, t in hits if s >= 2.67 and "," not in t]
        poor = [t for s, _, t in hits if s <= 1.67]
        first_word = query.split()[-1]
        near = [r["product_title"] for r in members if r["search_term"] != query and first_word in r["search_term"]]
        any_four = [r["product_title"] for r in rng.sample(members, 4)]
        others = [o for o in dict.fromkeys(poor + rng.sample(near, min(3, len(near))) + any_four) if o not in good][:4]
        for j, title in enumerate(good[:2]):
            for sign, shown in (("p", title), ("n", others[j])):
                text = f"Query: {query}\nProduct: {shown}"
                b.pair_label("F30", "home_depot_search", query, f"{hits[0][1]}.{j}{sign}", text, sign == "p", RELEVANT)
        if good:
            best = good[-1]
            listing = "\n".join(f"- {o}" for o in rng.sample([best] + others[:3], 4))
            text = f"Query: {query}\nCandidates:\n{listing}"
            b.add("F31", "home_depot_search", "en", "Q", query, hits[0][1], text, {"spans": [best]})


def intents(b):
    rows = b.table("hint3_curekart", "curekart_train.csv") + b.table("hint3_curekart", "curekart_test.csv")
    rows = [r for r in rows if r["label"] != "NO_NODES_DETECTED"]
    name = lambda x: x.lower().replace("_", " ")
    kinds = sorted({name(r["label"]) for r in rows})
    for i, r in enumerate(rows):
        text = r["sentence"]
        b.classify("F24", "hint3_curekart", "en", "D", text.lower(), i, text, [name(r["label"])], kinds, 6, 12)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cap", type=int, default=3000, help="records per task and source")
    a = parser.parse_args()
    b = Builder(a.data, a.seed, a.cap)
    for make in (polarity, chinese_titles, english_products, topics, questions, searches, intents):
        make(b)
    attributes(b, "oa_mine_attributes")
    attributes(b, "ae110k_attributes")
    parts = lambda *names: [f"{n}.{p}" for n in names for p in ("train.txt", "test.txt")]
    aspects(b, "absa_tv_tshirt", "en", [f"{n}_{p}.seg" for n in ("television", "tshirt") for p in ("train", "test")])
    shampoo = ["shampoo.train.txt.gz", "shampoo.test.txt"]
    aspects(b, "zh_product_absa", "zh", parts("camera", "notebook", "phone") + shampoo)
    write(b, a.out)


def share(records):
    """The commonest answer and its share: what a constant scores."""
    answer, n = Counter(r["output"] for r in records).most_common(1)[0]
    return f"commonest {answer!r:.30} {n / len(records):.0%}"


def write(b, out):
    rng, train, heldout = random.Random(b.seed), [], defaultdict(list)
    for (task, source, side), records in sorted(b.units.items()):
        records = rng.sample(records, min(len(records), b.cap))
        if side:
            heldout[task].append(records)
        else:
            train += records
            mean = lambda key: statistics.mean(len(r[key]) for r in records)
            print(f"{task} {source:24} {len(records):6}  input {mean('input'):4.0f}  prompt {mean('prompt'):4.0f}"
                  f"  output {mean('output'):4.0f} characters  {share(records)}")
    held = []
    for _task, units in sorted(heldout.items()):  # in turn from each source
        turns = [u[i] for i in range(HELDOUT_PER_TASK) for u in units if i < len(u)]
        held += turns[:HELDOUT_PER_TASK]
    inputs = {r["input"] for r in held}
    train = [r for r in train if r["input"] not in inputs]
    rng.shuffle(train)
    out.mkdir(parents=True, exist_ok=True)
    for name, records in (("train", train), ("heldout", held)):
        assert len({r["id"] for r in records}) == len(records)
        lines = (json.dumps(r, ensure_ascii=False) + "\n" for r in records)
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(name, len(records), "records;", *(dict(Counter(r[k] for r in records)) for k in ("lang", "task")))
    text = dict.fromkeys(part for r in train for part in (r["prompt"], r["input"], r["output"]))
    (out / "text.txt").write_text("\n".join(text) + "\n", encoding="utf-8")
    whole = sorted(len(r["input"]) + len(r["prompt"]) + len(r["constraint"]) + len(r["output"]) for r in train)
    at = lambda share: whole[int((len(whole) - 1) * share)]
    print("characters per record: median", at(0.5), "p95", at(0.95), "largest", at(1), "all", sum(whole))


if __name__ == "__main__":
    main()
