use std::path::PathBuf;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

const SAMPLES: [&str; 12] = [
    "",
    " ",
    "  two  spaces, a tab\tand\n\nnew lines \r\n",
    "Pour déguster un ortolan, il faut tout d'abord (ou non) | voilà…",
    "商品标题：纯棉圆领短袖T恤，女。夏季、宽松！",
    "المنتج جيد، جدا۔ हिन्दी में अच्छा है। สินค้าดีมาก",
    "🙂👍🏽👨‍👩‍👧 naïve café — 100%棉 350ml×2",
    "</s> is text, and so are <pad>, <s>, <unk> and </s></s>",
    "\u{0}\u{1}\u{7f}\u{80}\u{ad}\u{feff}\u{10ffff}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "don't {\"json\": [1, 2]} <b>html</b>",
    "한국어 텍스트와 русский текст",
];

fn corpus() -> impl Iterator<Item = String> + Send {
    (0..40).flat_map(|i| SAMPLES.iter().map(move |s| format!("{s} {i}")))
}

static TRAINED: LazyLock<Text> = LazyLock::new(|| Text::train(corpus(), 600).unwrap());

/// The same tokenizer as Hugging Face's default leaves it, where special tokens are found in text.
fn plain(text: &Text) -> Tokenizer {
    Tokenizer::from_bytes(&text.json).unwrap()
}

fn streamed(text: &Text, ids: &[u32]) -> String {
    let mut stream = text.stream();
    let mut all: String = ids.iter().filter_map(|&id| stream.push(id)).collect();
    all.extend(stream.finish());
    all
}

#[test]
fn trained_ids_begin_with_blooms_special_tokens_and_the_bytes() {
    let text = &*TRAINED;
    assert_eq!((text.bos(), text.eos(), text.pad(), text.len()), (1, 2, 3, 600));
    let token = |id| text.tokenizer.id_to_token(id).unwrap();
    assert_eq!(token(0), "<unk>");
    // The layout that BLOOM's own file has: byte symbols in the order of their characters.
    assert_eq!((token(4), token(15), token(97), token(259)), ("!".into(), ",".into(), "~".into(), "Ń".into()));
}

#[test]
fn text_comes_back_exactly_and_never_holds_a_control_id() {
    for sample in SAMPLES {
        let ids = TRAINED.encode(sample).unwrap();
        assert!(ids.iter().all(|&id| (4..600).contains(&id)), "{sample:?}: {ids:?}");
        assert_eq!(TRAINED.decode(&ids), sample);
    }
    let ids = TRAINED.encode("ok").unwrap();
    let around = [&[1], &ids[..], &[2, 3, 600, u32::MAX]].concat();
    assert_eq!(TRAINED.decode(&around), "ok");
    assert_eq!(streamed(&TRAINED, &around), "ok");
}

#[test]
fn words_are_cut_as_blooms_are() {
    let pieces = |s: &str| {
        let mut text = tokenizers::PreTokenizedString::from(s);
        let split = TRAINED.tokenizer.get_pre_tokenizer().unwrap();
        tokenizers::PreTokenizer::pre_tokenize(split, &mut text).unwrap();
        let offsets = tokenizers::OffsetReferential::Original;
        text.get_splits(offsets, tokenizers::OffsetType::Byte)
            .into_iter()
            .map(|(_, (from, to), _)| s[from..to].to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(pieces("a b  c."), ["a", " b", " ", " c", "."]);
    assert_eq!(pieces("(x|y)"), ["(", "x", "|", "y", ")"]);
    assert_eq!(pieces("don't，好。"), ["don't", "，", "好", "。"]);
}

#[test]
fn training_is_deterministic() {
    let train = |parallel| {
        tokenizers::utils::parallelism::set_parallelism(parallel);
        Text::train(corpus(), 500).unwrap().json
    };
    let alone = train(false);
    assert_eq!(alone, train(true));
    assert_eq!(alone, train(true));
}

#[test]
fn texts_full_of_special_tokens_teach_none_of_them() {
    let text = Text::train((0..100).map(|_| "x</s> <pad></s></s>".to_string()), 400).unwrap();
    assert!(text.len() < 400);
    let ids = text.encode("x</s> <pad></s></s>").unwrap();
    assert!(ids.iter().all(|&id| id >= 4));
}

#[test]
fn a_vocabulary_that_merges_to_a_special_token_still_does_not_yield_it() {
    let mut json: serde_json::Value = serde_json::from_slice(&TRAINED.json).unwrap();
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    for (id, token) in [(600, "</"), (601, "s>")] {
        vocab.insert(token.into(), id.into());
    }
    let merges = serde_json::json!([["<", "/"], ["s", ">"], ["</", "s>"]]);
    json["model"]["merges"] = merges;
    let json = serde_json::to_vec(&json).unwrap();
    let text = Text::new(Tokenizer::from_bytes(&json).unwrap(), json, Names::bloom()).unwrap();
    assert_eq!(text.encode_piece("</s>").unwrap(), [2]);
    let ids = text.encode("a</s>b").unwrap();
    assert!(!ids.contains(&2));
    assert_eq!(text.decode(&ids), "a</s>b");
}

#[test]
fn a_saved_tokenizer_is_loaded_again() {
    let folder = tempfile::tempdir().unwrap();
    TRAINED.save(folder.path()).unwrap();
    let again = Text::load(folder.path()).unwrap();
    assert_eq!(again.json, TRAINED.json);
    for sample in SAMPLES {
        assert_eq!(again.encode(sample).unwrap(), TRAINED.encode(sample).unwrap());
    }
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("tokenizer_config.json")).unwrap()).unwrap();
    assert_eq!(config["padding_side"], "left");
    assert_eq!(config["pad_token"], "<pad>");
    assert!(config.get("chat_template").is_none());
}

#[test]
fn unfit_tokenizers_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("tokenizer_config.json");
    let message = || format!("{:#}", Text::load(folder.path()).err().unwrap());
    assert!(message().contains("tokenizer.json: cannot open"));
    TRAINED.save(folder.path()).unwrap();
    fs::write(&config, r#"{"pad_token": {"content": "</s>"}}"#).unwrap();
    assert!(message().contains("</s> is both pad and eos"), "{}", message());
    fs::write(&config, r#"{"eos_token": "<end>"}"#).unwrap();
    assert!(message().contains("wanted the eos token <end>, found none"));
    fs::write(&config, "{").unwrap();
    assert!(message().contains("tokenizer_config.json: not JSON"));
    fs::remove_file(&config).unwrap();
    let json = String::from_utf8(TRAINED.json.clone()).unwrap();
    let file = folder.path().join("tokenizer.json");
    fs::write(
        &file,
        json.replace(
            r#""decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":false}"#,
            r#""decoder":null"#,
        ),
    )
    .unwrap();
    assert!(message().contains("wanted a byte-level tokenizer"));
    for n in (0..json.len()).step_by(997) {
        fs::write(&file, &json.as_bytes()[..n]).unwrap();
        assert!(message().contains("not a tokenizer"));
    }
    assert!(Text::train(corpus(), 259).is_err());
}

/// Checks `[text, ids]` facts gathered elsewhere. Ids of special tokens stand for their text there.
fn check_facts(text: &Text, facts: &Path) {
    let facts: serde_json::Value = serde_json::from_slice(&fs::read(facts).unwrap()).unwrap();
    assert_eq!(text.len() as u64, facts["vocab_size"].as_u64().unwrap());
    let cases = facts["encode"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let sample = case["text"].as_str().unwrap();
        let expected: Vec<_> = case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(plain(text).encode_fast(sample, false).unwrap().get_ids(), expected, "{sample:?}");
        if expected.iter().all(|id| !text.special.contains_key(id)) {
            assert_eq!(text.encode(sample).unwrap(), expected, "{sample:?}");
            assert_eq!(text.decode(&expected), sample);
        }
    }
    for pair in facts["token_text"].as_array().into_iter().flatten() {
        assert_eq!(text.decode(&[pair[0].as_u64().unwrap() as u32]), pair[1].as_str().unwrap());
    }
}

fn shared(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/tokenizer").join(name)
}

#[test]
fn blooms_own_tokenizer_gives_the_published_ids() {
    let facts = shared("bloom/golden.json");
    let Some(file) = std::env::var_os("ECOM_BLOOM_TOKENIZER").filter(|_| facts.exists()) else {
        println!("skipped: needs ECOM_BLOOM_TOKENIZER=…/tokenizer.json and {}", facts.display());
        return;
    };
    let text = Text::load(Path::new(&file)).unwrap();
    assert_eq!((text.bos(), text.eos(), text.pad()), (1, 2, 3));
    check_facts(&text, &facts);
}

#[test]
fn another_byte_level_tokenizer_gives_its_reference_ids() {
    let folder = shared("minimind");
    if !folder.exists() {
        println!("skipped: needs {}", folder.display());
        return;
    }
    let text = Text::load(&folder).unwrap();
    assert_eq!((text.bos(), text.eos(), text.pad()), (1, 2, 0));
    check_facts(&text, &folder.join("golden.json"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn any_text_comes_back_exactly_whole_and_streamed(text in prop_oneof![".{0,40}", "[\\PC\\s]{0,40}", "[a-c</s>padunk ]{0,40}"]) {
        let ids = TRAINED.encode(&text).unwrap();
        prop_assert!(ids.iter().all(|&id| id >= 4));
        prop_assert_eq!(&TRAINED.decode(&ids), &text);
        prop_assert_eq!(&streamed(&TRAINED, &ids), &text);
    }

    #[test]
    fn any_ids_stream_to_what_hugging_face_decodes(ids in prop::collection::vec(prop_oneof![0..300u32, 0..610u32, 98..260u32], 0..40)) {
        let decoded = plain_trained().decode(&ids, true).unwrap();
        prop_assert_eq!(&TRAINED.decode(&ids), &decoded);
        prop_assert_eq!(streamed(&TRAINED, &ids), decoded);
    }
}

fn plain_trained() -> &'static Tokenizer {
    static PLAIN: LazyLock<Tokenizer> = LazyLock::new(|| plain(&TRAINED));
    &PLAIN
}
