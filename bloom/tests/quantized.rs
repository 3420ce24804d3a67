//! Models whose matrices are in 8 or 4 bits: what they answer, how they are kept in files, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic)] // how a test fails

use bloom::{Bloom, Config, Decoding, Dtype, Generation};
use tensor::DType;
use tensor::safetensors::{Checkpoint, save};

/// A hidden size and a vocabulary that are no whole tiles.
fn model() -> Bloom {
    Bloom::random(Config::new(72, 2, 4, 309).unwrap(), 3).unwrap()
}

fn ids(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i * 131 + i * i * 7) % 309).collect()
}

fn losses(model: &Bloom) -> Vec<f32> {
    let ids = ids(400);
    let rows: Vec<u32> = (0..399).collect();
    model.losses(&ids, &[0, 150, 400], &rows, &ids[1..]).unwrap()
}

fn answers(model: &Bloom, prompts: &[Vec<u32>], batch: usize) -> Vec<Vec<u32>> {
    let settings = Generation {
        decoding: Decoding::Greedy,
        answers: 1,
        max_new_tokens: 12,
        eos: u32::MAX,
        limit: model.vocab(),
        repetition_penalty: 1.0,
        seed: 0,
        first: 0,
        batch,
    };
    let all = model.generate(prompts, &settings, &mut |_, _, _| true).unwrap();
    all.into_iter().map(|mut c| c.remove(0).ids).collect()
}

#[test]
fn a_file_gives_the_model_back_to_the_bit() {
    for dtype in [DType::Q8, DType::Q4] {
        let quantized = model().quantize(dtype).unwrap();
        assert_eq!(quantized.quantized(), Some(dtype));
        let folder = tempfile::tempdir().unwrap();
        quantized.save(folder.path()).unwrap();
        let loaded = Bloom::load(folder.path(), Dtype::Stored).unwrap();
        assert_eq!((loaded.quantized(), loaded.vocab()), (Some(dtype), 309));
        assert_eq!(losses(&loaded), losses(&quantized));
        // In f32 it is the weights that the codes stand for: an ordinary model, in memory and in files.
        let plain = Bloom::load(folder.path(), Dtype::F32).unwrap();
        assert_eq!(plain.quantized(), None);
        let again = tempfile::tempdir().unwrap();
        plain.save(again.path()).unwrap();
        assert_eq!(losses(&Bloom::load(again.path(), Dtype::Stored).unwrap()), losses(&plain));
        assert!(quantized.quantize(DType::Q8).is_err(), "twice");
    }
    assert!(model().quantize(DType::BF16).is_err());
}

#[test]
fn a_head_of_its_own_is_kept() {
    let mut untied = Config::new(64, 1, 4, 40).unwrap();
    untied.tied = false;
    for dtype in [DType::Q8, DType::Q4] {
        let quantized = Bloom::random(untied.clone(), 3).unwrap().quantize(dtype).unwrap();
        let folder = tempfile::tempdir().unwrap();
        quantized.save(folder.path()).unwrap();
        let loaded = Bloom::load(folder.path(), Dtype::Stored).unwrap();
        assert!(!loaded.config().tied);
        let ids: Vec<u32> = (0..30).collect();
        let of = |model: &Bloom| model.losses(&ids, &[0, 30], &[0, 7, 28], &[1, 2, 3]).unwrap();
        assert_eq!(of(&loaded), of(&quantized));
    }
}

#[test]
fn more_bits_are_nearer() {
    let exact = losses(&model());
    let off = |dtype| {
        let found = losses(&model().quantize(dtype).unwrap());
        exact.iter().zip(found).map(|(e, f)| f64::from((e - f).abs())).sum::<f64>()
    };
    let (eight, four) = (off(DType::Q8), off(DType::Q4));
    // Steps are 16 times as wide; how far errors cancel is left to chance.
    assert!(eight > 0.0 && 4.0 * eight < four, "{eight} {four}");
}

#[test]
fn answers_depend_on_no_company() {
    let prompts: Vec<Vec<u32>> = (1..=11).map(|n| ids(3 * n)).collect();
    for dtype in [DType::Q8, DType::Q4] {
        let quantized = model().quantize(dtype).unwrap();
        let alone = answers(&quantized, &prompts, 1);
        for batch in [2, 5, 16] {
            assert_eq!(answers(&quantized, &prompts, batch), alone, "{dtype} {batch}");
        }
        // Reading a prompt and going on token by token are one kernel: the bits are the same.
        let longer: Vec<Vec<u32>> = prompts.iter().zip(&alone).map(|(p, a)| [&p[..], &a[..5]].concat()).collect();
        let tails: Vec<&[u32]> = alone.iter().map(|a| &a[5..]).collect();
        let again = answers(&quantized, &longer, 4);
        let same = again.iter().zip(tails).filter(|(a, tail)| a.starts_with(tail)).count();
        assert!(same >= 10, "{same} of 11: only attention sums in another order");
    }
}

#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    model().quantize(DType::Q8).unwrap().save(path).unwrap();
    let refused = |part: &str| {
        let text = Bloom::load(path, Dtype::Stored).unwrap_err().to_string();
        assert!(text.contains(part) && !text.contains('\n'), "{part:?}: {text}");
    };
    let config = std::fs::read_to_string(path.join("config.json")).unwrap();
    let put = |text: &str| std::fs::write(path.join("config.json"), text).unwrap();
    put(&config.replace("\"ecom\"", "\"gptq\""));
    refused("quantization_config: wanted {");
    put(&config.replace("\"q8\"", "\"q4\""));
    refused("wanted U8 [20, 3, 288] for q4 weights [309, 72], found");
    let mut json: serde_json::Value = serde_json::from_str(&config).unwrap();
    json.as_object_mut().unwrap().remove("quantization_config");
    put(&json.to_string());
    refused("word_embeddings.weight: wanted [vocabulary, 72], found [20, 3, 544]");
    put(&config);
    // A scale that is no number.
    let file = Checkpoint::open(path).unwrap();
    let name = "transformer.h.1.mlp.dense_h_to_4h.weight";
    let good = file.load_quantized(name, DType::Q8, [288, 72]).unwrap().unwrap();
    let mut bytes = good.bytes().unwrap().to_vec();
    bytes[544..546].copy_from_slice(&0x7c00u16.to_le_bytes());
    let words = bytes.as_chunks::<4>().0.iter().map(|w| u32::from_le_bytes(*w)).collect();
    let bad = tensor::Tensor::quantized([288, 72], DType::Q8, words).unwrap();
    let model = Bloom::load(path, Dtype::Stored).unwrap();
    let tensors: Vec<_> =
        model.params().iter().map(|p| (p.name.as_str(), if p.name == name { &bad } else { &p.value })).collect();
    save(&path.join("model.safetensors"), &tensors, &std::collections::BTreeMap::new()).unwrap();
    refused("a scale of tile 1 is not a finite number");
}
