"""ecom beside other programs on the same CPU, by turns: one table of ratios.

python benches/peers.py PEERS SCRATCH [--cases decode,batch8,prefill,train] [--rounds 3]

PEERS has the other programs' harnesses (llama_infer.py, ct2_infer.py, hf_infer.py, hf_train.py with --autocast), each of which prints a line of JSON
with prefill_tps and decode_tps, or step_s. SCRATCH has their environments (ll, ct2, hf) and one model in every form: the folders m560
(f32), m560-bf16, m560-q8 and m560-q4, m560-f32.gguf, -bf16, -Q8_0 and -Q4_0, ct2-f32, ct2-int8; and a smaller one, small. ecom is
`cargo bench -p ecom --bench whole --no-run`; its executable is given by ECOM_WHOLE.

A ratio is of one round, in which every program runs once; what is printed is the median over the rounds, and the medians and extremes of
the figures themselves.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("peers")
arguments.add_argument("scratch")
arguments.add_argument("--cases", default="decode,long,batch8,prefill,train,documents")
arguments.add_argument("--rounds", type=int, default=3)
arguments.add_argument("--prefix", default="", help="put before each command, such as a scheduler's")
a = arguments.parse_args()
P, D, ECOM = a.peers, a.scratch, os.environ["ECOM_WHOLE"]
PYTHON = {name: f"{D}/{name}/bin/python" for name in ("ll", "ct2", "hf")}


def ecom(folder, **options):
    return f"{ECOM} infer {D}/{folder} --reps 1" + flags(options)


def llama(name, **options):
    return f"{PYTHON['ll']} {P}/llama_infer.py {D}/m560-{name}.gguf --fa 0 --reps 1" + flags(options, new="gen")


def ctranslate(kind, name, **options):
    return f"{PYTHON['ct2']} {P}/ct2_infer.py run {D}/ct2-{name} --type {kind} --reps 1" + flags(options, new="gen")


def transformers(kind, **options):
    return f"{PYTHON['hf']} {P}/hf_infer.py {D}/m560 --dtype {kind} --mode loop --reps 1" + flags(options, new="gen")


def flags(options, **names):
    return "".join(f" --{names.get(key, key)} {value}" for key, value in options.items())


def documents(count, seed=1):
    """Lengths as of instructions: log-normal, median about 150 tokens, 32 to 1,024."""
    draw = random.Random(seed)
    return [int(min(1024, max(32, math.exp(5 + 0.6 * draw.gauss(0, 1))))) for _ in range(count)]


def training(lengths, pad, model):
    """ecom packs the documents, transformers pads them; both count the documents' tokens."""
    ours = f"{ECOM} train {D}/{model} --steps 2 --lengths " + " ".join(map(str, lengths))
    theirs = f"{PYTHON['hf']} {P}/hf_train.py {D}/{model} --batch {len(lengths)} --seq {pad} --resp 0.15 --steps 2"
    return [("ecom", ours), ("ecom, blocks again", f"{ours} --recompute"),
            ("ecom bf16", f"{ours} --bf16"), ("ecom bf16, blocks again", f"{ours} --bf16 --recompute"),
            ("transformers", theirs), ("transformers, autocast to bf16", f"{theirs} --autocast")]


few = documents(8)
CASES = {
    "decode": ("decode_tps", "one sequence, prompt 128", [
        ("ecom bf16", ecom("m560-bf16", prompt=128)), ("llama.cpp bf16", llama("bf16", prompt=128)),
        ("ecom 8 bits", ecom("m560-q8", prompt=128)), ("llama.cpp Q8_0", llama("Q8_0", prompt=128)),
        ("CTranslate2 int8", ctranslate("int8", "int8", prompt=128)),
        ("ecom 4 bits", ecom("m560-q4", prompt=128)), ("llama.cpp Q4_0", llama("Q4_0", prompt=128))]),
    "long": ("decode_tps", "one sequence, prompt 128 and 512", [
        (f"ecom {name}, {prompt}", ecom(folder, prompt=prompt))
        for name, folder in (("bf16", "m560-bf16"), ("8 bits", "m560-q8"), ("4 bits", "m560-q4")) for prompt in (128, 512)]),
    "batch8": ("decode_tps", "eight sequences, prompt 128, tokens of all", [
        ("ecom 8 bits", ecom("m560-q8", prompt=128, batch=8)), ("llama.cpp Q8_0", llama("Q8_0", prompt=128, batch=8)),
        ("CTranslate2 int8", ctranslate("int8", "int8", prompt=128, batch=8)),
        ("ecom bf16", ecom("m560-bf16", prompt=128, batch=8)), ("llama.cpp bf16", llama("bf16", prompt=128, batch=8))]),
    "prefill": ("prefill_tps", "prompt 512", [
        ("ecom bf16", ecom("m560-bf16", prompt=512, new=4)), ("ecom f32", ecom("m560", prompt=512, new=4)),
        ("CTranslate2 f32", ctranslate("float32", "f32", prompt=512, new=4)), ("llama.cpp f32", llama("f32", prompt=512, new=4)),
        ("transformers f32", transformers("float32", prompt=512, new=4)),
        ("ecom 8 bits", ecom("m560-q8", prompt=512, new=4)), ("CTranslate2 int8", ctranslate("int8", "int8", prompt=512, new=4)),
        ("llama.cpp Q8_0", llama("Q8_0", prompt=512, new=4))]),
    "train": ("useful_tps", "4 documents of 256 tokens, 15 % response, 560M", training([256] * 4, 256, "m560")),
    "documents": ("useful_tps", f"8 documents, {min(few)} to {max(few)} tokens, 15 % response, 154M",
                  training(few, max(few), "small")),
}


def run(command, useful):
    done = subprocess.run(f"{a.prefix} {command}", shell=True, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not found:
        raise SystemExit(f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    found = {key.removeprefix("loop_").removeprefix("gen_"): value for key, value in found[-1].items()}
    return found if useful is None else found | {"useful_tps": useful / found["step_s"]}


for case in a.cases.split(","):
    figure, what, programs = CASES[case]
    useful = {"train": 4 * 256, "documents": sum(few)}.get(case)
    rounds = [{name: run(command, useful) for name, command in programs} for _ in range(a.rounds)]
    print(f"\n## {case}: {figure} ({what})\n\n| program | median | least | most | GiB | to the others |\n|---|--:|--:|--:|--:|---|")
    for name, _ in programs:
        values = [r[name][figure] for r in rounds]
        ratios = [
            f"{statistics.median(r[name][figure] / r[other][figure] for r in rounds):.2f} x {other}"
            for other, _ in programs if other != name and name.startswith("ecom")
        ]
        memory = max(r[name].get("peak_rss_gib") or 0 for r in rounds)
        print(f"| {name} | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} | {memory:.2f} | {', '.join(ratios)} |", flush=True)
