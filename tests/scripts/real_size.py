"""A BLOOM of the 560M shape with random weights, and what Hugging Face transformers makes of it, in float32.

Needs: torch, transformers, safetensors (CPU builds will do); 2.3 GB of disk; `train` needs about 20 GB of memory.
Usage: python real_size.py make DIR        writes DIR/{config.json,model.safetensors}: 1024 x 24 x 16, 250,880 rows
       python real_size.py reference DIR   writes DIR/{reference.safetensors,reference.json}: last-position logits over
                                           the whole vocabulary (`logits.N`, `control.N` [v]) for prompts of N random
                                           ids, and 32 greedy ids
       python real_size.py train DIR       times training steps on 1,024 tokens, 15 % labelled; prints one JSON line
The control prompt shares only its last token with the prompt; `control_error` is the relative L2 distance of the two
logit vectors, |a - b| / |b - mean(b)|: what a program that ignored its context would score.
The tied head would repeat the last token if the weights were plain: the embedding's norm has random signs and the rows
of dense_4h_to_h have mean zero, as in bloom_fixtures.py.
"""
import argparse
import json
import pathlib
import resource
import statistics
import time

import torch
from safetensors.torch import load_file, save_file

HIDDEN, LAYERS, HEADS, VOCAB = 1024, 24, 16, 250_880
LENGTHS, NEW_TOKENS = [24, 100, 300], 32


def make(a):
    g = torch.Generator().manual_seed(a.seed)
    normal = lambda shape, std, mean=0.0: torch.randn(shape, generator=g) * std + mean
    w, c = {"word_embeddings.weight": normal((VOCAB, HIDDEN), 0.02)}, HIDDEN

    def norm(name):
        w[f"{name}.weight"], w[f"{name}.bias"] = normal((c,), 0.1, 1.0), normal((c,), 0.1)

    norm("word_embeddings_layernorm")
    w["word_embeddings_layernorm.weight"] *= normal((c,), 1.0).sign()
    for i in range(LAYERS):
        norm(f"h.{i}.input_layernorm")
        norm(f"h.{i}.post_attention_layernorm")
        for name, rows, columns in [("self_attention.query_key_value", 3 * c, c), ("self_attention.dense", c, c),
                                    ("mlp.dense_h_to_4h", 4 * c, c), ("mlp.dense_4h_to_h", c, 4 * c)]:
            matrix = normal((rows, columns), a.body_std)
            w[f"h.{i}.{name}.weight"] = matrix - matrix.mean(1, keepdim=True) if columns > c else matrix
            w[f"h.{i}.{name}.bias"] = normal((rows,), 0.1)
    norm("ln_f")
    a.dir.mkdir(parents=True, exist_ok=True)
    save_file(w, a.dir / "model.safetensors", metadata={"format": "pt"})
    config = dict(architectures=["BloomForCausalLM"], model_type="bloom", vocab_size=VOCAB, hidden_size=c,
                  n_layer=LAYERS, n_head=HEADS, layer_norm_epsilon=1e-5, hidden_dropout=0.0, attention_dropout=0.0,
                  apply_residual_connection_post_layernorm=False, bos_token_id=1, eos_token_id=2, pad_token_id=3,
                  unk_token_id=0, tie_word_embeddings=True, use_cache=True, initializer_range=0.02)
    (a.dir / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(json.dumps({"parameters": sum(t.numel() for t in w.values()), "seed": a.seed, "body_std": a.body_std}))


def load(a):
    import transformers
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(a.threads)
    model = transformers.BloomForCausalLM.from_pretrained(a.dir, dtype=torch.float32)
    stored = load_file(a.dir / "model.safetensors")
    for name, value in model.transformer.state_dict().items():
        assert torch.equal(value, stored[name]), f"transformers did not load {name}"
    versions = {"transformers": transformers.__version__, "torch": torch.__version__, "threads": a.threads}
    return model, versions


def relative_error(got, want):
    return float((got - want).norm() / (want - want.mean()).norm())


@torch.inference_mode()
def reference(a):
    model, record = load(a)
    model.eval()
    g = torch.Generator().manual_seed(a.seed + 1)
    last = lambda ids: model(torch.tensor([ids]), logits_to_keep=1).logits[0, -1].clone()
    tensors, record = {}, record | {"prompts": {}, "control_prompts": {}, "control_error": {}}
    for n in LENGTHS:
        draw = lambda: torch.randint(10, VOCAB - 300, (n,), generator=g).tolist()
        prompt, control = draw(), draw()
        control[-1] = prompt[-1]
        tensors[f"logits.{n}"], tensors[f"control.{n}"] = last(prompt), last(control)
        record["prompts"][n], record["control_prompts"][n] = prompt, control
        record["control_error"][n] = relative_error(tensors[f"control.{n}"], tensors[f"logits.{n}"])
    prompt = record["prompts"][LENGTHS[0]]
    out = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
                         do_sample=False, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, eos_token_id=None,
                         pad_token_id=3, return_dict_in_generate=True, output_logits=True)
    ids = out.sequences[0, len(prompt):].tolist()
    tops = [step[0].topk(2).values for step in out.logits]
    record["greedy"] = {"prompt": LENGTHS[0], "ids": ids, "distinct": len(set(ids)),
                        "smallest_margin": min(float(t[0] - t[1]) for t in tops),
                        "logits_std": float(tensors[f"logits.{LENGTHS[0]}"].std())}
    save_file(tensors, a.dir / "reference.safetensors", metadata={"format": "pt"})
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in record.items())
    (a.dir / "reference.json").write_text("{\n" + lines + "\n}\n")
    print(json.dumps({k: record[k] for k in ("transformers", "torch", "control_error", "greedy")}))


def train(a):
    """Six documents of uneven length padded into one batch, as a user of the Trainer would have them."""
    model, record = load(a)
    model.train()
    g = torch.Generator().manual_seed(a.seed + 2)
    lengths = [250, 210, 180, 150, 130, 104]
    width = max(lengths)
    ids, mask = torch.full((len(lengths), width), 3), torch.zeros(len(lengths), width, dtype=torch.int64)
    labels = torch.full_like(ids, -100)
    for i, n in enumerate(lengths):
        ids[i, :n], mask[i, :n] = torch.randint(10, VOCAB - 300, (n,), generator=g), 1
        answer = slice(n - round(0.15 * n), n)
        labels[i, answer] = ids[i, answer]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.0, fused=True)
    rows = []
    for _ in range(a.steps + 1):  # the first one also allocates
        t = [time.perf_counter()]
        loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        t.append(time.perf_counter())
        loss.backward()
        t.append(time.perf_counter())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        t.append(time.perf_counter())
        rows.append([b - x for x, b in zip(t, t[1:])] + [t[-1] - t[0], float(loss.detach())])
    forward, backward, update, step, _ = map(statistics.median, zip(*rows[1:]))
    print(json.dumps(record | {
        "tokens": sum(lengths), "padded_tokens": ids.numel(), "labelled": int((labels != -100).sum()),
        "first_step_s": round(rows[0][3], 3), "step_s": round(step, 3), "forward_s": round(forward, 3),
        "backward_s": round(backward, 3), "clip_and_adamw_s": round(update, 3), "losses": [r[4] for r in rows],
        "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "reference", "train"])
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--body-std", type=float, default=0.05, help="of the layers' matrices; the embedding's is 0.02")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="timed training steps, after one that is not")
    a = parser.parse_args()
    {"make": make, "reference": reference, "train": train}[a.what](a)


if __name__ == "__main__":
    main()
