"""Golden values for tiny random BLOOMs, computed by Hugging Face transformers in float64.

Needs: torch, transformers, safetensors, numpy (CPU builds will do).
Usage: python bloom_fixtures.py [--out DIR] [--check] [--search CASE]
  writes DIR/<case>/{config.json,model.safetensors,expected.safetensors,expected.json}; DIR defaults to
  ../fixtures/bloom beside this script. --check writes nothing, builds every case twice and compares it with DIR
  byte for byte. --search CASE looks for a seed that satisfies `demands` below.

What is stored. Documents of uneven length are LEFT-padded into one batch; only their real positions are kept, packed in
order as rows [t, c]. `hidden.0` is the embedding after its layer norm, `hidden.1..l` the blocks' outputs,
`hidden.<l+1>` the output of ln_f. The loss is the mean over response targets: row i of a document predicts token i+1,
and counts when i+1 >= prompt length. `naive_error` is the largest difference of the same computation run by
transformers in float32: the worst of three layouts (left-padded, right-padded, each document alone); `largest` is the
largest magnitude of the float64 values; `adamw_losses` has one of each for the whole curve with its end.
`control.*` are the logits of three broken models.

transformers computes the attention softmax in float32 even in a float64 model; it is done in float64 here.
"""
import argparse
import contextlib
import json
import math
import pathlib
import tempfile

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import BloomForCausalLM
from transformers.models.bloom import modeling_bloom

# std: the matrices'. Wide for their small width, so that blocks outweigh the embedding in the residual stream.
CASES = {
    "four_heads": dict(seed=85, hidden=32, layers=2, heads=4, rows=96, known=96, std=0.3, embed_std=0.4,
                       dialect="old", prefix="transformer.", head=False, lengths=[1, 5, 11, 17], prompts=[1, 2, 6, 9]),
    "three_heads": dict(seed=114, hidden=24, layers=2, heads=3, rows=80, known=80, std=0.35, embed_std=0.45,
                        dialect="new", prefix="", head=True, lengths=[13, 1, 7, 12], prompts=[5, 1, 3, 11]),
    "padded_vocab": dict(seed=174, hidden=16, layers=2, heads=2, rows=112, known=100, std=0.4, embed_std=0.6,
                         dialect="new", prefix="transformer.", head=False, lengths=[6, 15, 9], prompts=[2, 7, 8]),
}
EOS, PAD = 2, 3
NEW_TOKENS, BEAMS, RETURNED, PENALTIES = 12, 4, 2, [1.0, 0.6]
GENERATION_PROMPTS = [1, 4, 7, 12]
ADAMW = dict(lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
STEPS = 10
BEAM_SEMANTICS = (
    "Log-probabilities are taken over all rows, then suppressed ids become -inf. Each step keeps the best 2*num_beams "
    "of num_beams*rows continuations (ties to the lower index). Of the first num_beams of these, the ones that end "
    "(eos, or max_new_tokens reached) enter the finished list with score sum_logprob / length^length_penalty, where "
    "length counts new tokens including eos; the best num_beams finished are kept. The best num_beams that did not end "
    "go on. early_stopping=False: a prompt takes no more finished sequences once num_beams are finished and the best "
    "running sum / (current new length)^length_penalty is not above the worst of them.")


class ExactSoftmax:
    """torch.nn.functional, but softmax keeps float64 where modeling_bloom asks for float32."""

    def __getattr__(self, name):
        return getattr(torch.nn.functional, name)

    @staticmethod
    def softmax(x, dim, dtype=None):
        return torch.nn.functional.softmax(x, dim=dim, dtype=x.dtype if x.dtype == torch.float64 else dtype)


modeling_bloom.F = ExactSoftmax()


def draw_weights(case):
    """Prefix-less name -> f32 tensor. Biases and norms lie away from 0 and 1, so that leaving one out shows.

    Two choices keep the tied head from repeating its last token whatever the attention does: the embedding's norm
    has random signs, which uncouples a token's residual from its own logit, and dense_4h_to_h has rows of mean zero,
    which removes the shift that the positive mean of GELU adds at every position alike.
    """
    g = torch.Generator().manual_seed(case["seed"])
    c = case["hidden"]
    normal = lambda shape, std, mean=0.0: torch.randn(shape, generator=g, dtype=torch.float32) * std + mean
    w = {"word_embeddings.weight": normal((case["rows"], c), case["embed_std"])}

    def norm(name):
        w[f"{name}.weight"], w[f"{name}.bias"] = normal((c,), 0.2, 1.0), normal((c,), 0.2)

    norm("word_embeddings_layernorm")
    w["word_embeddings_layernorm.weight"] *= normal((c,), 1.0).sign()
    for i in range(case["layers"]):
        norm(f"h.{i}.input_layernorm")
        norm(f"h.{i}.post_attention_layernorm")
        for name, rows, columns in [("self_attention.query_key_value", 3 * c, c), ("self_attention.dense", c, c),
                                    ("mlp.dense_h_to_4h", 4 * c, c), ("mlp.dense_4h_to_h", c, 4 * c)]:
            matrix = normal((rows, columns), case["std"])
            w[f"h.{i}.{name}.weight"] = matrix - matrix.mean(1, keepdim=True) if columns > c else matrix
            w[f"h.{i}.{name}.bias"] = normal((rows,), 0.1)
    norm("ln_f")
    return w, g


def config_of(case):
    shared = dict(architectures=["BloomForCausalLM"], model_type="bloom", vocab_size=case["rows"],
                  n_layer=case["layers"], layer_norm_epsilon=1e-5, hidden_dropout=0.0, attention_dropout=0.0,
                  apply_residual_connection_post_layernorm=False, bos_token_id=1, eos_token_id=EOS, pad_token_id=PAD,
                  unk_token_id=0, use_cache=True)
    if case["dialect"] == "old":  # as the published bloom-560m
        return shared | dict(n_embed=case["hidden"], num_attention_heads=case["heads"], n_inner=None,
                             attention_softmax_in_fp32=True, bias_dropout_fusion=True, masked_softmax_fusion=True,
                             offset_alibi=100, pretraining_tp=1, skip_bias_add=True, skip_bias_add_qkv=False)
    return shared | dict(hidden_size=case["hidden"], n_head=case["heads"], tie_word_embeddings=True)


def write_model(case, folder):
    """Writes config and weights; returns the generator, to draw the documents from."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, g = draw_weights(case)
    named = {case["prefix"] + k: v for k, v in weights.items()}
    if case["head"]:
        named["lm_head.weight"] = weights["word_embeddings.weight"].clone()
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_of(case), indent=2) + "\n")
    return g


def load(folder, dtype):
    """The folder as transformers reads it, checked against the file: no key of it may be ignored."""
    model = BloomForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    want = load_file(folder / "model.safetensors")
    for name, value in model.transformer.state_dict().items():
        stored = want.get(name, want.get("transformer." + name))
        assert torch.equal(value, stored), f"transformers did not load {name}"
    assert model.lm_head.weight is model.transformer.word_embeddings.weight, "the head is not tied"
    return model.to(dtype).eval()


def batch(rows, side):
    """ids, mask [b, t], padded on `side`."""
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), PAD), torch.zeros(len(rows), width, dtype=torch.int64)
    for i, row in enumerate(rows):
        at = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[i, at], mask[i, at] = torch.tensor(row), 1
    return ids, mask


def groups(documents, layout):
    """The batches one pass is made of: one padded batch, or each document alone."""
    return [[d] for d in documents] if layout == "alone" else [documents]


def packed_logits(model, documents, layout, hidden=None):
    """Logits of the real positions [t, v]; hidden states are appended to `hidden` per stage if given."""
    out = []
    for group in groups(documents, layout):
        ids, mask = batch(group, "right" if layout == "right" else "left")
        seen, hooks = [], []
        body = model.transformer
        for module in [body.word_embeddings_layernorm, *body.h, body.ln_f]:
            hook = lambda _m, _i, o: seen.append(o[0] if isinstance(o, tuple) else o)
            hooks.append(module.register_forward_hook(hook))
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        for h in hooks:
            h.remove()
        out.append(logits[mask.bool()])
        if hidden is not None:
            hidden.append([s[mask.bool()] for s in seen])
    return torch.cat(out)


def targets(documents, prompts):
    """Rows that predict a response token, and that token; rows count over the packed documents."""
    rows, tokens, start = [], [], 0
    for ids, prompt in zip(documents, prompts):
        rows += [start + i - 1 for i in range(prompt, len(ids))]
        tokens += ids[prompt:]
        start += len(ids)
    return torch.tensor(rows), torch.tensor(tokens)


def loss_of(model, spec, layout, hidden=None):
    rows, tokens = targets(spec["documents"], spec["prompts"])
    logits = packed_logits(model, spec["documents"], layout, hidden)
    return torch.nn.functional.cross_entropy(logits[rows], tokens, reduction="sum") / len(tokens), logits


def renumbering(model, seed):
    """Parameter name -> one index per axis: the same function with channels, units and head elements in another order."""
    g = torch.Generator().manual_seed(seed)
    cfg = model.config
    c, d = cfg.hidden_size, cfg.hidden_size // cfg.n_head
    channel, unit = torch.randperm(c, generator=g), torch.randperm(4 * c, generator=g)
    inside = [torch.randperm(d, generator=g) for _ in range(cfg.n_head)]
    part = torch.cat([h * 3 * d + p * d + inside[h] for h in range(cfg.n_head) for p in range(3)])
    head = torch.cat([h * d + inside[h] for h in range(cfg.n_head)])
    axes = {"word_embeddings.weight": (None, channel), "query_key_value.weight": (part, channel),
            "query_key_value.bias": (part,), "dense.weight": (channel, head), "dense_h_to_4h.weight": (unit, channel),
            "dense_h_to_4h.bias": (unit,), "dense_4h_to_h.weight": (channel, unit)}
    find = lambda name: next((a for end, a in axes.items() if name.endswith(end)), (channel,))
    return {name: find(name) for name, _ in model.named_parameters()}, channel


def reordered(x, axes, back=False):
    for axis, index in enumerate(axes):
        if index is not None:
            x = x.index_select(axis, index.argsort() if back else index)
    return x


def measure(folder, spec, dtype, layout, order=None):
    """Everything the fixture compares, name -> float64 array; `order` seeds a renumbering that is undone afterwards."""
    model, hidden = load(folder, dtype), []
    axes, channel = renumbering(model, order or 0) if order else ({}, None)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if order:
                p.copy_(reordered(p, axes[name]))
    loss, logits = loss_of(model, spec, layout, hidden)
    loss.backward()
    found = {"logits": logits, "loss": loss}
    for i in range(len(hidden[0])):
        state = torch.cat([h[i] for h in hidden])
        found[f"hidden.{i}"] = reordered(state, (None, channel), back=True) if order else state
    parameters = dict(model.named_parameters())
    for name, p in parameters.items():
        found[f"grad.{name}"] = reordered(p.grad.clone(), axes.get(name, ()), back=True)
    found["grad_norm"] = torch.stack([p.grad.norm() for p in parameters.values()]).norm()
    optimizer, losses = torch.optim.AdamW(model.parameters(), **ADAMW), []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss, _ = loss_of(model, spec, layout)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    with torch.no_grad():
        losses.append(loss_of(model, spec, layout)[0])
    found["adamw_losses"] = torch.stack(losses)
    for name in ["word_embeddings.weight", "h.1.self_attention.query_key_value.weight", "ln_f.weight"]:
        found[f"adamw.transformer.{name}"] = reordered(parameters["transformer." + name], axes.get("transformer." + name, ()), back=True)
    return {k: v.detach().to(torch.float64).numpy() for k, v in found.items()}


def generate(model, prompts, suppress, cache=True, **options):
    """New ids per prompt, up to and including eos."""
    ids, mask = batch(prompts, "left")
    with torch.no_grad():
        out = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=NEW_TOKENS,
                             eos_token_id=EOS, pad_token_id=PAD, suppress_tokens=suppress or None, use_cache=cache,
                             return_dict_in_generate=True, output_scores=True, **options)
    new = [row[ids.shape[1]:].tolist() for row in out.sequences]
    new = [row[:row.index(EOS) + 1] if EOS in row else row for row in new]
    return new, getattr(out, "sequences_scores", None)


def beams(model, prompts, suppress, penalty, cache=True):
    """Per prompt its RETURNED best, and their scores."""
    new, scores = generate(model, prompts, suppress, cache, num_beams=BEAMS, num_return_sequences=RETURNED,
                           length_penalty=penalty, early_stopping=False)
    split = lambda xs: [xs[i:i + RETURNED] for i in range(0, len(xs), RETURNED)]
    return split(new), split([round(float(s), 5) for s in scores])


@contextlib.contextmanager
def broken(control, heads):
    """transformers' BLOOM with one thing wrong."""
    slopes, mask = modeling_bloom._get_alibi_slopes, modeling_bloom.create_causal_mask

    def wrong_slopes(count, device):
        if count & (count - 1):  # the formula for powers of two, used where it does not hold
            return torch.tensor([2 ** (-8 * (i + 1) / count) for i in range(count)], device=device)
        return slopes(count, device).flip(0)

    def padding_only(inputs_embeds, attention_mask, **_):
        b, t, _ = inputs_embeds.shape
        bias = torch.zeros(b, 1, t, t, dtype=inputs_embeds.dtype)
        return bias.masked_fill(attention_mask[:, None, None, :] == 0, torch.finfo(inputs_embeds.dtype).min)

    if control == "no_alibi":
        modeling_bloom._get_alibi_slopes = lambda count, device: torch.zeros(count, device=device)
    elif control == "wrong_slopes":
        modeling_bloom._get_alibi_slopes = wrong_slopes
    else:
        modeling_bloom.create_causal_mask = padding_only
    try:
        yield
    finally:
        modeling_bloom._get_alibi_slopes, modeling_bloom.create_causal_mask = slopes, mask


def all_ids(model, prompts, suppress, cache=True):
    """Greedy ids and, per length penalty, the n-best beams."""
    found = {"greedy": generate(model, prompts, suppress, cache)[0]}
    for penalty in PENALTIES:
        found[f"beam_{penalty}"] = beams(model, prompts, suppress, penalty, cache)[0]
    return found


def demands(case, ids, controls, spec, folder):
    """What makes equal ids mean something. Returns the first unmet demand, or None."""
    suppress = spec["suppress"]
    model = load(folder, torch.float64)
    best = [n[0] for n in ids["beam_1.0"]]
    for kind, rows in [("greedy", ids["greedy"]), ("beam", best)]:
        ended = [r[-1] == EOS for r in rows]
        if all(ended) or not any(ended):
            return f"{kind}: some sequence must end by eos and some must not"
        if any(len(set(r)) < min(4, len(r)) for r in rows) or min(map(len, rows)) < 2:
            return f"{kind}: a sequence is degenerate"
        if len({tuple(r[-4:]) for r in rows}) < len(rows):
            return f"{kind}: sequences end alike"
    if ids["greedy"] == best or ids["beam_1.0"] == ids["beam_0.6"]:
        return "beam search or its length penalty changes nothing"
    for kind in ids:
        if sum(c[kind] != ids[kind] for c in controls.values()) < 2:
            return f"{kind}: fewer than two controls change the ids"
    if all_ids(load(folder, torch.float32), spec["generation"], suppress) != ids:
        return "float32 gives other ids"
    g = torch.Generator().manual_seed(1)
    for _ in range(3):  # ids that flip under small noise would test luck
        noisy = load(folder, torch.float64)
        with torch.no_grad():
            for p in noisy.parameters():
                p.mul_(1 + 1e-4 * torch.randn(p.shape, generator=g, dtype=p.dtype))
        if all_ids(noisy, spec["generation"], suppress) != ids:
            return "ids are near a tie"
    if suppress:
        if all(max(r) < case["known"] for r in generate(model, spec["generation"], None)[0]):
            return "suppressed ids would not be chosen anyway"
        plain = model.forward  # ids must not depend on whether -inf is set before or after the log-softmax

        def before(*args, **options):
            out = plain(*args, **options)
            out.logits[..., case["known"]:] = -math.inf
            return out

        model.forward = before
        if all_ids(model, spec["generation"], None) != ids:
            return "ids depend on the order of suppression and softmax"
    return None


def draw_spec(case, g):
    draw = lambda n: torch.randint(4, case["known"], (n,), generator=g).tolist()
    return dict(documents=[draw(n) for n in case["lengths"]], prompts=case["prompts"],
                generation=[draw(n) for n in GENERATION_PROMPTS], suppress=list(range(case["known"], case["rows"])))


def build_ids(case, spec, folder):
    model = load(folder, torch.float64)
    ids = all_ids(model, spec["generation"], spec["suppress"])
    assert ids == all_ids(model, spec["generation"], spec["suppress"], cache=False), "cache and full pass differ"
    for i, prompt in enumerate(spec["generation"]):
        alone = all_ids(model, [prompt], spec["suppress"])
        assert all(alone[k][0] == ids[k][i] for k in ids), "a batch differs from its rows alone"
    controls = {}
    for control in ["no_alibi", "wrong_slopes", "bidirectional"]:
        with broken(control, case["heads"]):
            controls[control] = all_ids(model, spec["generation"], spec["suppress"], cache=False)
    return ids, controls


def check_against_transformers_loss(model, spec, loss):
    """transformers' own `labels=` loss (computed in float32) is the same number."""
    ids, mask = batch(spec["documents"], "left")
    labels = ids.clone()
    for row, (document, prompt) in enumerate(zip(spec["documents"], spec["prompts"])):
        labels[row, : ids.shape[1] - len(document) + prompt] = -100
    theirs = float(model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.detach())
    assert abs(theirs - loss) < 1e-5, (theirs, loss)


def build(name, case, folder):
    """Makes one fixture folder; returns the unmet demand or None."""
    spec = draw_spec(case, write_model(case, folder))
    ids, controls = build_ids(case, spec, folder)
    unmet = demands(case, ids, controls, spec, folder)
    if unmet:
        return unmet
    exact = measure(folder, spec, torch.float64, "left")
    alone = measure(folder, spec, torch.float64, "alone")
    runs = [measure(folder, spec, torch.float32, layout) for layout in ("left", "right", "alone")]
    runs += [measure(folder, spec, torch.float32, "left", order) for order in range(1, 5)]
    renumbered = measure(folder, spec, torch.float64, "left", 1)
    worst = {k: max(float(np.abs(r[k] - exact[k]).max()) for r in runs) for k in exact}
    largest = {k: float(np.abs(exact[k]).max()) for k in exact}
    tolerance = {k: 2 * worst[k] + 4 * float(np.spacing(np.float32(largest[k]))) for k in exact}
    for k in exact:
        assert np.abs(alone[k] - exact[k]).max() < 1e-3 * tolerance[k], f"{k}: padding matters"
        assert np.abs(renumbered[k] - exact[k]).max() < 1e-3 * tolerance[k], f"{k}: renumbering changes the function"
    model = load(folder, torch.float64)
    check_against_transformers_loss(model, spec, float(exact["loss"]))
    tensors = {k: v for k, v in exact.items() if v.ndim and k != "adamw_losses"}
    separation = {}
    for control in controls:
        with broken(control, case["heads"]), torch.no_grad():
            logits = packed_logits(model, spec["documents"], "left").numpy()
        separation[control] = float(np.abs(logits - exact["logits"]).max())
        assert separation[control] > 1e3 * tolerance["logits"], f"{control} is too close"
        tensors[f"control.{control}"] = logits
    save_file({k: torch.from_numpy(v.astype(np.float32)) for k, v in tensors.items()}, folder / "expected.safetensors",
              metadata={"format": "pt"})
    write_expected(folder, case, spec, exact, worst, largest, ids, controls, separation, model)
    return None


def write_expected(folder, case, spec, exact, worst, largest, ids, controls, separation, model):
    n_best = {str(p): dict(zip(["ids", "scores"], beams(model, spec["generation"], spec["suppress"], p)))
              for p in PENALTIES}
    record = {
        "transformers": transformers.__version__, "torch": torch.__version__.split("+")[0], "seed": case["seed"],
        "heads": case["heads"], "tokenizer_size": case["known"], "documents": spec["documents"],
        "prompt_lengths": spec["prompts"], "loss": float(exact["loss"]), "grad_norm": float(exact["grad_norm"]),
        "adamw": ADAMW | {"steps": STEPS, "clip": None, "note": "decay on every weight; loss i is before update i"},
        "adamw_losses": exact["adamw_losses"][:STEPS].tolist(), "adamw_loss_after": float(exact["adamw_losses"][STEPS]),
        "generation": {"prompts": spec["generation"], "max_new_tokens": NEW_TOKENS, "eos": EOS, "pad": PAD,
                       "suppress": spec["suppress"], "note": "ids are the new ones, up to and including eos"},
        "greedy": ids["greedy"],
        "beam": {"num_beams": BEAMS, "num_return_sequences": RETURNED, "early_stopping": False,
                 "by_length_penalty": n_best,
                 "semantics": f"transformers {transformers.__version__}: {BEAM_SEMANTICS}"},
        "control": {k: {"logits_max_abs_difference": separation[k], **controls[k]} for k in controls},
        "naive_error": worst, "largest": largest,
    }
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in record.items())
    (folder / "expected.json").write_text("{\n" + lines + "\n}\n")


def search(name, limit=20000):
    for seed in range(limit):
        case = CASES[name] | {"seed": seed}
        with tempfile.TemporaryDirectory() as scratch:
            folder = pathlib.Path(scratch)
            spec = draw_spec(case, write_model(case, folder))
            # Two cheap demands first: the full set takes seconds a seed.
            rows = generate(load(folder, torch.float64), spec["generation"], spec["suppress"])[0]
            ended = [r[-1] == EOS for r in rows]
            if all(ended) or not any(ended) or any(len(set(r)) < min(4, len(r)) for r in rows):
                continue
            unmet = demands(case, *build_ids(case, spec, folder), spec, folder)
        print(name, seed, unmet or "GOOD", flush=True)
        if unmet is None:
            return


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "fixtures" / "bloom")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--search", choices=CASES)
    a = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if a.search:
        return search(a.search)
    for name, case in CASES.items():
        for _ in range(2 if a.check else 1):
            with tempfile.TemporaryDirectory() as scratch:
                folder = pathlib.Path(scratch) if a.check else a.out / name
                unmet = build(name, case, folder)
                assert unmet is None, f"{name}: {unmet}"
                for file in sorted(folder.iterdir()):
                    assert file.read_bytes() == (a.out / name / file.name).read_bytes(), f"{name}/{file.name} differs"
        print(name, sum(f.stat().st_size for f in (a.out / name).iterdir()), "bytes")


if __name__ == "__main__":
    main()
