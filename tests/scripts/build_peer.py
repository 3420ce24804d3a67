"""Renders three tasks with Hugging Face datasets, as a plain Python script would, to time `ecom data build` against.

Needs: datasets (and Python 3.11).
Usage: python build_peer.py RAW OUT.jsonl [--processes 2]
RAW holds `oa_mine_attributes`, `pricerunner_categories` and `womens_clothing_reviews` (uncompressed). Tasks as the builder's
F02 (attribute lines), F03 (category out of a list) and F12 (polarity): candidates drawn, prompt chosen among three, six
parts laid out. Prints rows, seconds and rows a second, from opening the first file to closing the last.
"""
import argparse
import json
import os
import pathlib
import random
import time

import datasets

PROMPTS = {
    "F02": ["Fill in {labels} from the title.", "Copy the values of {labels}.", "What does the title say about {labels}?"],
    "F03": ["Which department fits? {labels}", "Choose the category from {labels}.", "Where does this belong: {labels}?"],
    "F12": ["Is the buyer content? {labels}", "Label the opinion with one of {labels}.", "What is the tone: {labels}?"],
}


def record(task, row_id, text, candidates, output, gold, rng):
    template = rng.randrange(3)
    return {
        "id": f"{task}:{row_id}", "task": task, "description": task, "input": text, "candidates": candidates,
        "prompt": PROMPTS[task][template].replace("{labels}", ", ".join(candidates)),
        "constraint": "Answer with the options given.", "output": output, "gold": gold, "template_id": f"{task}-en-{template}",
        "lang": "en", "raw_ids": [str(row_id)],
    }


def attributes(row, index, names):
    rng = random.Random(index)
    pairs = {k: list(v) for k, v in json.loads(row["target_scores"]).items()}
    pairs = {k: [x for x in v if x != "n/a" and x in row["input"]] for k, v in pairs.items()}
    gold = [k for k, v in pairs.items() if v]
    shown = gold + [n for n in rng.sample(names, min(10, len(names))) if n not in pairs][: rng.randint(1, 10)]
    rng.shuffle(shown)
    lines = "\n".join(f"{k}: {', '.join(pairs.get(k, [])) or 'None'}" for k in shown)
    entities = [{"type": k, "text": v} for k in gold for v in pairs[k]]
    return {"line": json.dumps(record("F02", index, row["input"], shown, lines, {"entities": entities}, rng), ensure_ascii=False)}


def category(row, index, names):
    rng = random.Random(index)
    shown = list({row["category"], *rng.sample(names, min(8, len(names)))})
    rng.shuffle(shown)
    gold = {"labels": [row["category"]]}
    return {"line": json.dumps(record("F03", index, row["title"], shown, row["category"], gold, rng), ensure_ascii=False)}


def polarity(row, index):
    rng = random.Random(index)
    shown = ["positive", "negative"]
    label = "positive" if int(row["rating"]) >= 4 else "negative"
    rng.shuffle(shown)
    return {"line": json.dumps(record("F12", index, row["review"], shown, label, {"labels": [label]}, rng), ensure_ascii=False)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("raw", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    datasets.disable_progress_bars()
    datasets.disable_caching()
    started = time.perf_counter()
    rows = 0
    cache = str(args.out.parent / "cache")
    options = dict(with_indices=True, num_proc=args.processes)
    with args.out.open("w", encoding="utf-8") as out:
        def write(made):
            nonlocal rows
            for line in made["line"]:
                out.write(line + "\n")
            rows += len(made)

        files = str(args.raw / "oa_mine_attributes/train.jsonl")
        mine = [json.loads(line) for line in open(files, encoding="utf-8")]
        mine = datasets.Dataset.from_list([{"input": r["input"], "target_scores": json.dumps(r["target_scores"])} for r in mine])
        names = sorted({k for s in mine["target_scores"] for k in json.loads(s)})
        write(mine.map(attributes, fn_kwargs={"names": names}, remove_columns=mine.column_names, **options))
        files = str(args.raw / "pricerunner_categories/pricerunner_20k.csv")
        runner = datasets.load_dataset("csv", data_files=files, cache_dir=cache)["train"]
        runner = runner.rename_columns({"product_title": "title", "category_label": "category"})
        names = sorted(set(runner["category"]))
        write(runner.map(category, fn_kwargs={"names": names}, remove_columns=runner.column_names, **options))
        files = str(args.raw / "womens_clothing_reviews/reviews_12k.csv")
        reviews = datasets.load_dataset("csv", data_files=files, cache_dir=cache)["train"]
        reviews = reviews.rename_columns({"Review Text": "review", "Rating": "rating"})
        reviews = reviews.filter(lambda r: r["rating"] != 3, num_proc=args.processes)
        write(reviews.map(polarity, remove_columns=reviews.column_names, **options))
    seconds = time.perf_counter() - started
    print(json.dumps({"rows": rows, "seconds": round(seconds, 2), "rows_a_second": round(rows / seconds),
                      "datasets": datasets.__version__, "processes": args.processes}))


main()
