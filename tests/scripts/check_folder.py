"""Shows that transformers loads a model folder written by `ecom`, and continues a prompt with it.

Needs: torch, transformers, safetensors, tokenizers (CPU builds will do).
Usage: python check_folder.py DIR [--ids 5 17 9 ...] [--text TEXT] [--new 16]
Loads config, weights, generation config and tokenizer through the Auto classes, fails on any missing or unexpected
weight, and prints one JSON line: the prompt's ids, the greedy continuation's ids up to and including end-of-text, and
their text. With neither --ids nor --text the prompt is four fixed ids.
"""
import argparse
import json

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir")
    parser.add_argument("--ids", type=int, nargs="+")
    parser.add_argument("--text")
    parser.add_argument("--new", type=int, default=16)
    a = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    model, info = AutoModelForCausalLM.from_pretrained(a.dir, dtype=torch.float32, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        # The tied head may be left out.
        left = sorted(str(k) for k in info.get(kind) or [] if k != "lm_head.weight")
        assert not left, f"{kind}: {left}"
    assert model.lm_head.weight is model.transformer.word_embeddings.weight, "the head is not tied"
    tokenizer = AutoTokenizer.from_pretrained(a.dir)
    generation = GenerationConfig.from_pretrained(a.dir)
    assert len(tokenizer) <= model.config.vocab_size, "the tokenizer knows more ids than the embedding has rows"
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        known = {getattr(x, name) for x in (model.config, generation, tokenizer)}
        assert len(known) == 1, f"{name} differs between config, generation config and tokenizer: {known}"
    ids = a.ids or (tokenizer(a.text).input_ids if a.text else [5, 6, 7, 8])
    generation.update(do_sample=False, num_beams=1, max_new_tokens=a.new)
    out = model.eval().generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
                                generation_config=generation)
    new = out[0, len(ids):].tolist()
    print(json.dumps({"transformers": transformers.__version__, "parameters": model.num_parameters(), "prompt": ids,
                      "ids": new, "text": tokenizer.decode(new)}, ensure_ascii=False))


if __name__ == "__main__":
    main()
