//! Laws of the tape as a whole. What each operation's gradient is, its kernel's own spec checks; that they come together in a
//! model, `bloom/tests/parity.rs`. Small whole numbers are exact in f32, so the values here are compared for equality.

use std::sync::Arc;

use simulator::devices;
use tensor::{DType, Device, Tensor};

use super::*;

/// Where tensors are, and how those of two axes are stored. The values are exact as bf16, too.
struct Setting {
    device: Device,
    dtype: DType,
}

fn settings() -> impl Iterator<Item = Setting> {
    let wide = devices().map(|device| Setting { device: device.clone(), dtype: DType::F32 });
    wide.chain(simulator::gpus().iter().map(|gpu| Setting { device: gpu.clone(), dtype: DType::BF16 }))
}

impl Setting {
    fn put(&self, rows: usize, columns: usize, values: &[f32]) -> Tensor {
        let near = Tensor::new(&[rows, columns], values.to_vec()).unwrap().to_dtype(self.dtype).unwrap();
        near.to_device(&self.device).unwrap()
    }

    fn matrix(&self, rows: usize, columns: usize, first: i32) -> Tensor {
        let values: Vec<f32> = (first..).step_by(3).take(rows * columns).map(|i| (i % 5 - 2) as f32).collect();
        self.put(rows, columns, &values)
    }

    fn vector(&self, n: usize) -> Tensor {
        let near = Tensor::new(&[n], (0..n).map(|i| i as f32 - 1.0).collect::<Vec<_>>()).unwrap();
        near.to_device(&self.device).unwrap()
    }
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    let near = tensor.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
    near.values::<f32>().unwrap().to_vec()
}

/// a · b, [m, k] times [k, n], both row-major.
fn times(a: &[f32], b: &[f32], k: usize) -> Vec<f32> {
    let (m, n) = (a.len() / k, b.len() / k);
    (0..m * n).map(|i| (0..k).map(|j| a[i / n * k + j] * b[j * n + i % n]).sum()).collect()
}

fn transposed(a: &[f32], columns: usize) -> Vec<f32> {
    let rows = a.len() / columns;
    (0..a.len()).map(|i| a[i % rows * columns + i / rows]).collect()
}

fn plus(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// Two linear layers of width 3; the second one's input is its residual as well.
struct Net {
    params: Params,
    layers: [Linear; 2],
}

impl Net {
    fn new(on: &Setting) -> Self {
        let mut params = Params::default();
        let layers = [0, 1].map(|i| Linear {
            weight: params.add(format!("w{i}"), on.matrix(3, 3, i)),
            bias: params.add(format!("b{i}"), on.vector(3)),
        });
        Self { params, layers }
    }

    fn forward(&self, tape: &mut Tape<'_>, x: &Var) -> Var {
        let hidden = tape.linear(x, self.layers[0]).unwrap();
        tape.linear_residual(&hidden, self.layers[1], &hidden).unwrap()
    }
}

#[test]
fn a_value_used_twice_gets_both_gradients() {
    for on in settings() {
        let net = Net::new(&on);
        let mut tape = Tape::recording(&net.params);
        let x = tape.input(on.matrix(2, 3, 5));
        let out = net.forward(&mut tape, &x);
        let dout = on.matrix(2, 3, 2);
        let mut grads = Grads::zeros(&net.params).unwrap();
        let mut nodes = tape.backward(&out, dout.clone(), &mut grads).unwrap();

        let [w0, b0, w1] = [0, 1, 2].map(|i| numbers(&net.params.iter().nth(i).unwrap().value));
        let (x_values, dout) = (numbers(&on.matrix(2, 3, 5)), numbers(&dout));
        let hidden = plus(&times(&x_values, &transposed(&w0, 3), 3), &[b0.clone(), b0].concat());
        let dhidden = plus(&dout, &times(&dout, &w1, 3));
        assert_eq!(numbers(grads.get(net.layers[1].weight)), times(&transposed(&dout, 3), &hidden, 2));
        assert_eq!(numbers(grads.get(net.layers[0].weight)), times(&transposed(&dhidden, 3), &x_values, 2));
        assert_eq!(numbers(grads.get(net.layers[0].bias)), plus(&dhidden[..3], &dhidden[3..]));
        assert!(grads.iter().all(|g| g.dtype() == DType::F32 && g.device() == &on.device));
        let dx = nodes.take(&x).unwrap();
        assert_eq!((numbers(&dx), dx.dtype()), (times(&dhidden, &w0, 3), on.dtype));
        assert!(nodes.take(&x).is_none(), "a gradient is handed out once");
    }
}

#[test]
fn backward_passes_add_up_and_clear_forgets() {
    for on in settings() {
        let net = Net::new(&on);
        let mut grads = Grads::zeros(&net.params).unwrap();
        let mut once = Vec::new();
        for pass in 1..=3 {
            let mut tape = Tape::recording(&net.params);
            let x = tape.input(on.matrix(2, 3, 5));
            let out = net.forward(&mut tape, &x);
            tape.backward(&out, on.matrix(2, 3, 2), &mut grads).unwrap();
            let now: Vec<f32> = grads.iter().flat_map(numbers).collect();
            if pass == 1 {
                once = now;
            } else {
                assert_eq!(now, once.iter().map(|g| g * pass as f32).collect::<Vec<_>>());
            }
        }
        assert!(once.iter().any(|&g| g != 0.0));
        grads.clear().unwrap();
        assert!(grads.iter().flat_map(numbers).all(|g| g == 0.0));
    }
}

#[test]
fn a_tape_that_is_off_computes_the_same_and_refuses_to_go_back() {
    for on in settings() {
        let net = Net::new(&on);
        let mut bits = Vec::new();
        for mut tape in [Tape::recording(&net.params), Tape::off(&net.params), Tape::decode(&net.params)] {
            let x = tape.input(on.matrix(1, 3, 4));
            let out = net.forward(&mut tape, &x);
            bits.push(numbers(out.value()));
            if bits.len() > 1 {
                let mut grads = Grads::zeros(&net.params).unwrap();
                let back = tape.backward(&out, on.matrix(1, 3, 0), &mut grads);
                assert!(matches!(back, Err(Error::NotRecording)));
            }
        }
        assert!(bits.iter().all(|b| *b == bits[0]), "{bits:?}");
    }
}

#[test]
fn rows_taken_twice_get_the_sum_and_rows_not_taken_nothing() {
    for on in settings() {
        let mut params = Params::default();
        let table = params.add("table", on.matrix(4, 2, 1));
        let mut tape = Tape::recording(&params);
        let ids: Arc<[u32]> = Arc::from([2, 0, 2]);
        let embedded = tape.embedding(table, &ids).unwrap();
        let chosen = tape.gather(&embedded, &Arc::from([1, 1, 2])).unwrap();
        let mut grads = Grads::zeros(&params).unwrap();
        tape.backward(&chosen, on.put(3, 2, &[1.0, 2.0, 10.0, 20.0, 100.0, 200.0]), &mut grads).unwrap();
        // Row 1 of the embedded ones is table row 0, row 2 is table row 2; row 0 was not chosen.
        assert_eq!(numbers(grads.get(table)), [11.0, 22.0, 0.0, 0.0, 100.0, 200.0, 0.0, 0.0]);
        let mut tape = Tape::off(&params);
        assert!(tape.embedding(table, &Arc::from([4])).is_err());
    }
}

#[test]
fn one_parameter_cannot_be_weight_and_bias() {
    for on in settings() {
        let mut params = Params::default();
        let id = params.add("w", on.matrix(1, 1, 4));
        let layer = Linear { weight: id, bias: id };
        let mut tape = Tape::recording(&params);
        let x = tape.input(on.matrix(1, 1, 5));
        // The shapes of a [1, 1] weight and a [1] bias differ, so this ends before or in the backward pass, never in a panic.
        let refused = match tape.linear(&x, layer) {
            Ok(out) => tape.backward(&out, on.matrix(1, 1, 1), &mut Grads::zeros(&params).unwrap()).is_err(),
            Err(_) => true,
        };
        assert!(refused);
    }
}

/// The head's loss reaches the head and the rows before it.
#[test]
fn the_head_adds_to_the_gradient_of_its_table() {
    for on in settings() {
        let mut params = Params::default();
        let table = params.add("table", on.matrix(4, 2, 1));
        let mut tape = Tape::recording(&params);
        let hidden = tape.embedding(table, &Arc::from([2, 0])).unwrap();
        let mut grads = Grads::zeros(&params).unwrap();
        let (losses, dhidden) = head_loss(&hidden, table, &[1, 3], 0.5, &params, &mut grads).unwrap();
        assert!(numbers(&losses).iter().all(|&loss| loss > 0.0));
        // Of the head's gradient by its scores each row sums to zero, so that of the table by rows does.
        let sums = |grads: &Grads| -> f32 { numbers(grads.get(table)).iter().sum::<f32>().abs() };
        assert!(sums(&grads) < 0.05, "{}", sums(&grads));
        let before = numbers(grads.get(table));
        tape.backward(&hidden, dhidden.clone(), &mut grads).unwrap();
        let mut wanted = before;
        for (row, dx) in [2, 0].into_iter().zip(numbers(&dhidden).chunks_exact(2)) {
            for (i, dx) in dx.iter().enumerate() {
                wanted[2 * row + i] += dx;
            }
        }
        assert_eq!(numbers(grads.get(table)), wanted);
    }
}
