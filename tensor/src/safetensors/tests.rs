use ::safetensors::SafeTensors;
use proptest::prelude::*;

use super::*;

/// A file's bytes from its header and the number of bytes that follow.
fn file(header: &str, numbers: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..numbers).map(|i| i as u8));
    bytes
}

fn open(bytes: &[u8]) -> Result<Checkpoint> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    fs::write(&path, bytes).unwrap();
    Checkpoint::open(&path)
}

fn numbers<T: crate::Element>(sizes: &[usize], numbers: impl IntoIterator<Item = T>) -> Tensor {
    Tensor::new(sizes, numbers.into_iter().collect()).unwrap()
}

fn small() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let a = numbers(&[2, 2], [1.0f32, 2.0, 3.0, 4.0]);
    let b = numbers(&[3], [1.0f32, 2.0, 3.0].map(bf16::from_f32));
    let metadata = [("step".to_string(), "7".to_string())].into();
    save(&path, &[("b", &b), ("a", &a)], &metadata).unwrap();
    fs::read(&path).unwrap()
}

#[test]
fn what_is_saved_is_what_hugging_faces_reader_finds() {
    let bytes = small();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().clone().unwrap();
    assert_eq!((metadata.len(), &*metadata["format"], &*metadata["step"]), (2, "pt", "7"));
    let read = SafeTensors::deserialize(&bytes).unwrap();
    let a = read.tensor("a").unwrap();
    assert_eq!((a.dtype(), a.shape()), (Dtype::F32, &[2, 2][..]));
    assert_eq!(a.data(), bytemuck::cast_slice::<f32, u8>(&[1.0, 2.0, 3.0, 4.0]));
    assert_eq!(read.tensor("b").unwrap().dtype(), Dtype::BF16);
    assert!((bytes.len() - 16 - 6).is_multiple_of(8));
    let own = open(&bytes).unwrap();
    assert_eq!(own.metadata()["step"], "7");
    assert_eq!(own.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(own.info("b"), Some(&Info { shape: vec![3], stored: Stored::BF16 }));
    assert!(own.load("c", None).unwrap().is_none());
}

#[test]
fn a_file_cut_at_any_length_is_an_error() {
    let bytes = small();
    for n in 0..bytes.len() {
        let message = open(&bytes[..n]).unwrap_err().to_string();
        assert!(message.contains("x.safetensors: wanted ") && !message.contains('\n'), "{n}: {message}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(open(&longer).unwrap_err().to_string().ends_with("wanted 22 bytes of numbers, found 23"));
}

#[test]
fn a_changed_header_byte_is_an_error_or_a_header_that_hugging_faces_reader_accepts_too() {
    let bytes = small();
    let mut accepted = 0;
    for at in 0..bytes.len() - 22 {
        for flip in (0..8).map(|bit| 1u8 << bit).chain([0xff]) {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            let Ok(checkpoint) = open(&changed) else { continue };
            accepted += 1;
            let theirs = SafeTensors::deserialize(&changed).unwrap();
            assert_eq!(checkpoint.names().count(), theirs.len());
            for name in checkpoint.names() {
                let tensor = theirs.tensor(name).unwrap();
                let Ok(loaded) = checkpoint.load(name, None) else { continue };
                let loaded = loaded.unwrap();
                assert_eq!(loaded.shape(), tensor.shape());
                if tensor.dtype() != Dtype::F16 {
                    assert_eq!(loaded.bytes().unwrap(), tensor.data());
                }
            }
        }
    }
    // Other names, and "F32" as "I32" or "U32"; white space.
    assert!(accepted > 0);
}

#[test]
fn hostile_files_are_errors_in_one_line() {
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    let f32s = |shape: &str, offsets: &str| tensor("F32", shape, offsets);
    let one = f32s("[1]", "[0,4]");
    let two = f32s("[1]", "[4,8]");
    let cases = [
        (b"".to_vec(), "at least 8 bytes, found 0"),
        (u64::MAX.to_le_bytes().to_vec(), "header of at most 4194304 bytes, found one of 18446744073709551615"),
        ((1u64 << 63).to_le_bytes().to_vec(), "header of at most"),
        (100u64.to_le_bytes().to_vec(), "header of 100 bytes, found 0"),
        (file("", 0), "begins with '{'"),
        (file("  {}", 0), "begins with '{'"),
        (file("[]", 0), "begins with '{'"),
        (file("{} x", 0), "trailing characters"),
        (file(&format!("{{\"a\":{}", "[".repeat(100_000)), 0), "header: expected value"),
        (file(&format!(r#"{{"a":{{"x":{}"#, "[".repeat(100_000)), 0), "header: EOF while parsing"),
        (file(&format!(r#"{{"a":{one},"a":{two}}}"#), 8), "a is there twice"),
        (file(&format!(r#"{{"a":{one},"\u0061":{one}}}"#), 4), "a is there twice"),
        (file(r#"{"__metadata__":{"k":"1","k":"2"}}"#, 0), "k is there twice"),
        (file(r#"{"__metadata__":{},"__metadata__":{}}"#, 0), "__metadata__ is there twice"),
        (file(r#"{"__metadata__":{"k":1}}"#, 0), "expected a string"),
        (file(&format!(r#"{{"a":{one},"b":{one}}}"#), 4), "invalid offset for tensor"),
        (file(&format!(r#"{{"a":{two}}}"#), 8), "invalid offset for tensor `a`"),
        (file(&format!(r#"{{"a":{one}}}"#), 8), "wanted 4 bytes of numbers, found 8"),
        (file(&format!(r#"{{"a":{two}}}"#), 4), "invalid offset"),
        (file(&format!(r#"{{"a":{}}}"#, f32s("[1]", "[4,0]")), 4), "wanted 4 bytes for F32 [1], found offsets 4 to 0"),
        (file(&format!(r#"{{"a":{}}}"#, f32s("[2]", "[0,4]")), 4), "wanted 8 bytes for F32 [2], found offsets 0 to 4"),
        (file(&format!(r#"{{"a":{}}}"#, f32s("[1]", "[0,18446744073709551615]")), 4), "wanted 4 bytes for F32 [1]"),
        (file(&format!(r#"{{"a":{}}}"#, f32s("[1]", "[0,18446744073709551616]")), 4), "header: invalid"),
        (
            file(&format!(r#"{{"a":{}}}"#, f32s("[4294967296,4294967296]", "[0,0]")), 0),
            "wanted a whole number of bytes",
        ),
        (file(&format!(r#"{{"a":{}}}"#, f32s("[-1]", "[0,4]")), 4), "header: invalid value"),
        (file(&format!(r#"{{"a":{}}}"#, f32s("[1.0]", "[0,4]")), 4), "header: invalid type"),
        (
            file(&format!(r#"{{"a":{}}}"#, tensor("F4", "[1]", "[0,0]")), 0),
            "wanted a whole number of bytes, found F4 [1]",
        ),
        (file(&format!(r#"{{"a":{}}}"#, tensor("Q8\\n", "[1]", "[0,1]")), 1), r"unknown variant `Q8\n`"),
        (file(&format!(r#"{{"a{}":{two}}}"#, "\\u001b".repeat(1000)), 8), "invalid offset"),
    ];
    for (bytes, expected) in cases {
        let message = open(&bytes).unwrap_err().to_string();
        assert!(message.contains(expected), "wanted {expected:?} in {message:?}");
        assert!(message.len() < 600 && !message.contains(|c: char| c.is_control()), "{message:?}");
    }
}

#[test]
fn stored_formats_that_cannot_be_read_are_named_when_asked_for() {
    let one = r#"{"dtype":"I64","shape":[1],"data_offsets":[0,8]}"#;
    let deep = r#"{"dtype":"F32","shape":[1,1,1,1,2],"data_offsets":[8,16]}"#;
    let checkpoint = open(&file(&format!(r#"{{"ids":{one},"deep":{deep}}}"#), 16)).unwrap();
    assert_eq!(checkpoint.info("ids").unwrap().stored, Stored::Other(Dtype::I64));
    let message = |name: &str, dtype| checkpoint.load(name, dtype).unwrap_err().to_string();
    assert!(message("ids", None).ends_with("x.safetensors: tensor ids: wanted F32, BF16, F16 or U32, found I64"));
    assert!(message("deep", None).ends_with("tensor deep: wanted at most four axes, found [1, 1, 1, 1, 2]"));
    let checkpoint = open(&small()).unwrap();
    let message = checkpoint.load("b", Some(DType::U32)).unwrap_err().to_string();
    assert!(message.ends_with("tensor b: wanted u32, found bf16"), "{message}");
}

#[test]
fn misaligned_and_empty_tensors_are_read() {
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[2,10]},"h":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"z":{"dtype":"F32","shape":[0,3],"data_offsets":[2,2]}}"#;
    for spaces in 0..8 {
        let mut bytes = file(&format!("{header}{}", " ".repeat(spaces)), 2);
        bytes.extend(bytemuck::cast_slice::<f32, u8>(&[1.5, -2.0]));
        let checkpoint = open(&bytes).unwrap();
        assert_eq!(checkpoint.load("a", None).unwrap().unwrap().values::<f32>().unwrap(), [1.5, -2.0]);
        assert_eq!(checkpoint.load("z", None).unwrap().unwrap().shape(), [0, 3]);
    }
}

#[test]
fn every_f16_becomes_the_same_number() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let mut bytes = file(r#"{"x":{"dtype":"F16","shape":[65536],"data_offsets":[0,131072]}}"#, 0);
    bytes.extend(bytemuck::cast_slice::<u16, u8>(&all));
    let checkpoint = open(&bytes).unwrap();
    let wide = checkpoint.load("x", None).unwrap().unwrap();
    let narrow = checkpoint.load("x", Some(DType::BF16)).unwrap().unwrap();
    for ((&bits, &f), &b) in all.iter().zip(wide.values::<f32>().unwrap()).zip(narrow.values::<bf16>().unwrap()) {
        // IEEE 754: sign, five bits of exponent biased by 15, ten of fraction.
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
        let size = match exponent {
            0 => fraction * 2f32.powi(-24),
            31 if fraction == 0.0 => f32::INFINITY,
            31 => f32::NAN,
            e => (1024.0 + fraction) * 2f32.powi(e - 25),
        };
        let expected = if bits >> 15 == 1 { -size } else { size };
        assert!(f.to_bits() == expected.to_bits() || f.is_nan() && expected.is_nan(), "{bits:#x}");
        assert!(b == bf16::from_f32(expected) || b.is_nan() && expected.is_nan());
    }
}

#[test]
fn the_stored_format_is_a_view_and_another_is_a_rounded_copy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let wide = numbers(&[3], [1.0f32, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0]);
    save(&path, &[("wide", &wide)], &BTreeMap::new()).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let place = |dtype| checkpoint.load("wide", dtype).unwrap().unwrap().bytes().unwrap().as_ptr();
    assert_eq!(place(None), place(Some(DType::F32)));
    let narrow = checkpoint.load("wide", Some(DType::BF16)).unwrap().unwrap();
    assert_eq!(narrow.values::<bf16>().unwrap(), [1.0, 1.0, 1.0 + 4.0 / 256.0].map(bf16::from_f32));
}

#[test]
fn writing_over_the_file_that_is_mapped_is_safe() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let many = 1 << 20;
    save(&path, &[("x", &numbers(&[many], (0..many).map(|i| i as f32)))], &BTreeMap::new()).unwrap();
    let old = Checkpoint::open(folder.path()).unwrap().load("x", None).unwrap().unwrap();
    save(&path, &[("x", &old)], &BTreeMap::new()).unwrap();
    save(&path, &[("x", &numbers(&[1], [5.0f32]))], &BTreeMap::new()).unwrap();
    assert!(old.values::<f32>().unwrap().iter().enumerate().all(|(i, &x)| x == i as f32));
    let new = Checkpoint::open(folder.path()).unwrap().load("x", None).unwrap().unwrap();
    assert_eq!(new.values::<f32>().unwrap(), [5.0]);
}

#[test]
fn the_same_tensors_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (a, b) = (numbers(&[2], [1.0f32, 2.0]), numbers(&[2], [1u32, 2]));
    let metadata: BTreeMap<_, _> = (0..20).map(|i| (format!("key {i}"), "value".to_string())).collect();
    save(&at("1"), &[("a", &a), ("b", &b)], &metadata).unwrap();
    save(&at("2"), &[("b", &b), ("a", &a)], &metadata).unwrap();
    assert_eq!(fs::read(at("1")).unwrap(), fs::read(at("2")).unwrap());
    assert!(save(&at("3"), &[("a", &a), ("a", &b)], &metadata).unwrap_err().to_string().contains("found a twice"));
    assert!(save(&at("3"), &[("__metadata__", &a)], &metadata).is_err());
    assert!(!at("3").exists());
}

/// A folder of a sharded model: 40 bytes of numbers, at most 16 to a shard.
fn sharded() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tensors: Vec<_> = (0..5).map(|i| (format!("t{i}"), numbers(&[2], [i as f32, 0.5]))).collect();
    let named: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    save_sharded(folder.path(), &named, 16).unwrap();
    folder
}

#[test]
fn shards_are_found_again() {
    let folder = sharded();
    let mut names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let shard = |i| format!("model-0000{i}-of-00003.safetensors");
    assert_eq!(names, [shard(1), shard(2), shard(3), "model.safetensors.index.json".into()]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["t0", "t1", "t2", "t3", "t4"]);
    for i in 0..5u8 {
        let tensor = checkpoint.load(&format!("t{i}"), None).unwrap().unwrap();
        assert_eq!(tensor.values::<f32>().unwrap(), [f32::from(i), 0.5]);
    }
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("model.safetensors.index.json")).unwrap()).unwrap();
    assert_eq!(index["metadata"]["total_size"], 40);
    assert_eq!(index["weight_map"]["t3"], shard(2));
    let x = numbers(&[2], [1.0f32, 2.0]);
    assert!(save_sharded(folder.path(), &[("x", &x), ("y", &x)], 8).is_err());
    let small = tempfile::tempdir().unwrap();
    save_sharded(small.path(), &[("x", &x), ("y", &x)], 16).unwrap();
    assert_eq!(Checkpoint::open(&small.path().join("model.safetensors")).unwrap().names().count(), 2);
}

#[test]
fn an_index_that_does_not_fit_its_shards_is_an_error() {
    let first = "model-00001-of-00003.safetensors";
    let faults: [(&str, &str, &str); 9] = [
        (
            r#""t0": "model-00001"#,
            r#""t0": "model-00002"#,
            "-00001-of-00003.safetensors: found tensor t0, which the index does not place here",
        ),
        (r#""t0":"#, r#""t9":"#, "wanted tensor t9 by the index, found none"),
        (r#""t0": "model-00001-of-00003.safetensors","#, "", "found tensor t0, which the index does not place here"),
        (r#""t0":"#, r#""t1":"#, "t1 is there twice"),
        (first, "../x.safetensors", "wanted a shard's plain file name ending in .safetensors, found ../x.safetensors"),
        (first, "/etc/x.safetensors", "plain file name"),
        (first, "in/x.safetensors", "plain file name"),
        (first, "pytorch_model.bin", "plain file name"),
        (first, "model-00009-of-00003.safetensors", "model-00009-of-00003.safetensors: cannot open"),
    ];
    for (from, to, expected) in faults {
        let folder = sharded();
        let index = folder.path().join("model.safetensors.index.json");
        let text = fs::read_to_string(&index).unwrap();
        assert!(text.contains(from));
        fs::write(&index, text.replace(from, to)).unwrap();
        let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(message.contains(expected), "wanted {expected:?} in {message:?}");
    }
    let folder = sharded();
    let copy = folder.path().join("copy.safetensors");
    fs::copy(folder.path().join(first), copy).unwrap();
    let index = folder.path().join("model.safetensors.index.json");
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, text.replacen(first, "copy.safetensors", 1)).unwrap();
    let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("copy.safetensors: found tensor t1, which the index does not place here"), "{message}");
    fs::write(&index, vec![b' '; 5 << 20]).unwrap();
    assert!(Checkpoint::open(folder.path()).unwrap_err().to_string().contains("wanted at most 4194304 bytes"));
}

#[test]
fn what_is_no_safetensors_model_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let message = |path: &Path| Checkpoint::open(path).unwrap_err().to_string();
    assert!(
        message(folder.path()).ends_with("wanted model.safetensors or model.safetensors.index.json, found neither")
    );
    fs::write(at("pytorch_model.bin"), "PK").unwrap();
    assert!(message(folder.path()).contains("pytorch_model.bin is a PyTorch file"));
    assert!(message(&at("pytorch_model.bin")).contains("convert it to safetensors"));
    assert!(message(&at("none.safetensors")).contains("cannot open: No such file"));
    assert!(message(Path::new("/dev/zero")).contains("wanted a file"));
    fs::create_dir(at("model.safetensors")).unwrap();
    assert!(message(folder.path()).contains("model.safetensors: wanted a file"));
}

#[test]
fn the_first_number_that_is_not_finite_is_found() {
    assert_eq!(first_non_finite(&numbers(&[3], [1.0, f32::NAN, f32::INFINITY])), Some(1));
    assert_eq!(first_non_finite(&numbers(&[2], [bf16::MAX, bf16::NEG_INFINITY])), Some(1));
    assert_eq!(first_non_finite(&numbers(&[2], [f32::MAX, f32::MIN_POSITIVE / 2.0])), None);
    assert_eq!(first_non_finite(&numbers(&[1], [u32::MAX])), None);
}

fn any_tensor() -> impl Strategy<Value = Tensor> {
    (prop::collection::vec(0..5usize, 0..=4), 0..3, any::<u64>()).prop_map(|(sizes, dtype, seed)| {
        // Bits of every kind, infinities and NaNs included.
        let mut state = seed | 1;
        let n = sizes.iter().product::<usize>();
        let mut bits = std::iter::from_fn(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Some((state >> 32) as u32)
        });
        match dtype {
            0 => numbers(&sizes, bits.by_ref().take(n).map(f32::from_bits)),
            1 => numbers(&sizes, bits.by_ref().take(n).map(|b| bf16::from_bits(b as u16))),
            _ => numbers(&sizes, bits.by_ref().take(n)),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn any_tensors_come_back_bit_for_bit(
        tensors in prop::collection::btree_map("\\PC{1,12}", any_tensor(), 1..6), limit in 1..400usize
    ) {
        let folder = tempfile::tempdir().unwrap();
        let named: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        save_sharded(folder.path(), &named, limit).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        prop_assert!(checkpoint.names().eq(tensors.keys()));
        for (name, tensor) in &tensors {
            let read = checkpoint.load(name, None).unwrap().unwrap();
            prop_assert_eq!((read.shape(), read.dtype()), (tensor.shape(), tensor.dtype()));
            prop_assert_eq!(read.bytes().unwrap(), tensor.bytes().unwrap());
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_a_checkpoint(length in 0..300u64, rest in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = [&length.to_le_bytes()[..], &rest].concat();
        let _ = open(&bytes);
    }
}
