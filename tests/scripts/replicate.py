"""Do atomic tasks teach? Trains the same small model on final tasks only and on final and atomic ones, and compares.

Needs: nothing but Python 3.11 and a built `ecom`.
Usage: python replicate.py ECOM DATA OUT [--seeds 3] [--tokens 600000] [--pretrain 1200000] [--limit 100]
ECOM is the program, DATA the folder that `ecom data build --data` takes. Arms: F (final tasks), FA (final and atomic), FA-strict
(FA without format twins). All start from one model, pre-trained on the texts of FA's training rows; each gets the same number of
tokens (by the mean length of its rows), batch size, learning rate and schedule. Scores are strict, on the recipe's own held-out sets, as
(score - best trivial) / (100 - best trivial) per set; intervals from 10,000 draws of sets and of seeds. What is there is not made
again. Prints Markdown.
"""
import argparse
import json
import pathlib
import random
import statistics
import subprocess

ARMS = {"F": "atomic = false", "FA": "", "FA-strict": "format_twins = false"}
RECIPE = pathlib.Path(__file__).parents[2] / "ecominstruct/recipe.toml"
SHAPE = "--hidden 128 --layers 4 --heads 4 --vocab 6016".split()
TRAIN = "--threads 1 --batch 8 --warmup 0.03 --schedule cosine --weight-decay 0".split()


def run(*command, out=None):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    if out:
        out.write_text(done.stdout)


def rows(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def lengths(args, data):
    """Mean tokens of a row, prompt and answer, as the shared tokenizer counts them."""
    report = args.out / f"{data.parent.name}.json"
    if not report.exists():
        run(args.ecom, "data", "stats", "--json", "--tokenizer", args.out / "pretrained/model", data, out=report)
    stats = json.loads(report.read_text())
    return [stats[part]["sum"] / stats["instructions"] for part in ("prompt_tokens", "response_tokens")]


def train(args, start, data, folder, steps, seed, lr):
    if not (folder / "model").exists():
        run(args.ecom, "train", *start, "--data", data, "--output", folder, "--overwrite", "--steps", steps, "--epochs", 100,
            "--seed", seed, "--lr", lr, "--save-every", 0, *TRAIN)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ecom", type=pathlib.Path)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=600_000)
    parser.add_argument("--pretrain", type=int, default=1_200_000)
    parser.add_argument("--limit", type=int, default=100)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    data = args.data.resolve()
    for arm, tasks in ARMS.items():
        folder = args.out / f"data-{arm}"
        if not folder.exists():
            recipe = RECIPE.read_text().replace('raw = "raw"', f'raw = "{data}/raw"')
            recipe = recipe.replace('["ecominstruct_eval"]', f'["{data}/ecominstruct_eval"]')
            recipe = recipe.replace("[tasks]\n", f"[tasks]\n{tasks}\n")
            (args.out / f"{arm}.toml").write_text(recipe)
            run(args.ecom, "data", "build", args.out / f"{arm}.toml", "--output", folder)
    texts = args.out / "texts.jsonl"
    if not texts.exists():
        seen = sorted({r["input"] for r in rows(args.out / "data-FA/train.jsonl")})
        random.Random(0).shuffle(seen)
        with texts.open("w", encoding="utf-8") as file:
            for text in filter(None, seen):
                file.write(json.dumps({"instruction": "Text", "input": "", "output": text[:1200]}, ensure_ascii=False) + "\n")
    # Tokens of a text before there is a tokenizer: about a third of its bytes.
    size = statistics.fmean(8 + len(row["output"].encode()) / 3.2 for row in rows(texts))
    train(args, SHAPE, texts, args.out / "pretrained", round(args.pretrain / 8 / size), 0, 2e-3)
    sets = sorted((args.out / "data-FA/heldout").glob("*.jsonl"))
    scores = {}  # arm -> seed -> set -> normalised score
    raw = {}
    used = {}
    for arm in ["Z", *ARMS]:
        for seed in range(1, 1 + (args.seeds if arm in ARMS else 1)):
            folder = args.out / ("pretrained" if arm == "Z" else f"{arm}-{seed}")
            if arm in ARMS:
                start = ["--model", args.out / "pretrained/model"]
                file = args.out / f"data-{arm}/train.jsonl"
                prompt, answer = lengths(args, file)
                steps = round(args.tokens / 8 / (prompt + answer))
                train(args, start, file, folder, steps, seed, 1e-3)
                used[arm] = [steps, 8 * steps * (prompt + answer), 8 * steps * answer]
            report = folder / "scores.json"
            if not report.exists():
                run(args.ecom, "eval", "--model", folder / "model", *sets, "--limit", args.limit, "--max-new-tokens", 64, "--threads", 1,
                    "--batch", 32, "--json", "--save", folder / "answers.jsonl", out=report)
            for entry in json.loads(report.read_text())["sets"]:
                by = {s["who"]: s["strict"]["score"] for s in entry["scores"]}
                best = max(v for k, v in by.items() if k != "model")
                if best < 100:
                    scores.setdefault(arm, {}).setdefault(seed, {})[entry["set"]] = (by["model"] - best) / (100 - best) * 100
                raw.setdefault(entry["set"], {}).setdefault(arm, []).append(by["model"])
                raw[entry["set"]]["trivial"] = [best]
    names = sorted(scores["F"][1])
    columns = ["trivial", "Z", *ARMS]
    print("Strict scores, mean over seeds (with the spread of the seeds):\n")
    print("| set | " + " | ".join(columns) + " |\n|---|" + "---:|" * len(columns))
    for name in names:
        cells = [raw[name][c] for c in columns]
        print(f"| {name} | " + " | ".join(f"{statistics.fmean(c):.1f}" + (f" ± {statistics.stdev(c):.1f}" if len(c) > 1 else "") for c in cells) + " |")
    print("\n| arm | steps | tokens | of these in answers | normalised score, by seed |\n|---|---:|---:|---:|---|")
    for arm in ARMS:
        by_seed = [statistics.fmean(scores[arm][s].values()) for s in scores[arm]]
        steps, tokens, answers = used[arm]
        print(f"| {arm} | {steps:,} | {tokens:,.0f} | {answers:,.0f} | {', '.join(f'{s:.1f}' for s in by_seed)} |")
    rng = random.Random(1)
    print("\n| difference | points | 95 % interval, sets and seeds drawn | sets drawn as they are, seeds drawn |\n|---|---:|---|---|")
    for a, b in [("FA-strict", "F"), ("FA", "F"), ("FA", "FA-strict")]:
        def draw(redraw_sets):
            chosen = rng.choices(names, k=len(names)) if redraw_sets else names
            means = []
            for arm in (a, b):
                seeds = rng.choices(list(scores[arm]), k=len(scores[arm]))
                means.append(statistics.fmean(scores[arm][s][n] for s in seeds for n in chosen))
            return means[0] - means[1]
        point = statistics.fmean(statistics.fmean(scores[a][s].values()) for s in scores[a]) - statistics.fmean(
            statistics.fmean(scores[b][s].values()) for s in scores[b])
        cells = []
        for redraw in (True, False):
            draws = sorted(draw(redraw) for _ in range(10_000))
            cells.append(f"{draws[250]:+.1f} to {draws[9749]:+.1f}")
        print(f"| {a} - {b} | {point:+.1f} | {cells[0]} | {cells[1]} |")


main()
