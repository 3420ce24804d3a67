use kernels::adamw::{self, AdamW, Weight};
use kernels::elementwise;
use tensor::{DType, Tensor};

use crate::{Error, GradNorm, Grads, Params, Result};

/// AdamW's constants (Loshchilov and Hutter, 2019) and the clipping of the gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of their squares.
    pub beta2: f32,
    /// Added to the root of the mean square.
    pub eps: f32,
    /// Decoupled weight decay, for parameters that decay.
    pub weight_decay: f32,
    /// The global norm to which larger gradients are scaled down; 0 leaves them.
    pub clip: f32,
}

impl Default for Settings {
    /// torch's defaults, no decay, no clipping.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, clip: 0.0 }
    }
}

/// AdamW with its state: what it keeps of every parameter, and the number of steps taken.
#[derive(Debug)]
pub struct Optimizer {
    settings: Settings,
    states: Vec<State>,
    steps: u64,
}

/// What is kept of a parameter, where it is.
#[derive(Debug)]
struct State {
    /// Its exact value, where it is stored as bf16.
    master: Option<Tensor>,
    /// Means of its gradient and of the gradient's square.
    moments: [Tensor; 2],
}

impl Optimizer {
    /// A fresh state for these parameters, which become f32, their own masters. Where `matrices` is bf16, those of two axes become
    /// that, rounded from f32 masters that are kept here.
    ///
    /// # Errors
    /// Parameters or `matrices` that are no floats, or what a GPU says.
    pub fn new(params: &mut Params, settings: Settings, matrices: DType) -> Result<Self> {
        let mut states = Vec::with_capacity(params.len());
        for p in params.iter_mut() {
            let exact = elementwise::convert(&p.value, DType::F32)?;
            let zero = || Tensor::zeros_on(exact.device(), exact.shape(), DType::F32);
            let moments = [zero()?, zero()?];
            let dtype = if p.value.shape().len() > 1 { matrices } else { DType::F32 };
            p.value = elementwise::convert(&exact, dtype)?;
            states.push(State { master: (dtype != DType::F32).then_some(exact), moments });
        }
        Ok(Self { settings, states, steps: 0 })
    }

    /// Steps taken so far, those that an infinite gradient made void included: they have had their place in the schedule.
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// The exact f32 value of every parameter, in their order: what to save as the model, on any device.
    pub fn masters<'a>(&'a self, params: &'a Params) -> impl Iterator<Item = &'a Tensor> {
        params.iter().zip(&self.states).map(|(p, state)| state.master.as_ref().unwrap_or(&p.value))
    }

    /// The state as named tensors: `<parameter>.m` and `<parameter>.v`, f32 on any device.
    pub fn state<'a>(&'a self, params: &'a Params) -> impl Iterator<Item = (String, &'a Tensor)> {
        params
            .iter()
            .zip(&self.states)
            .flat_map(|(p, State { moments: [m, v], .. })| [(format!("{}.m", p.name), m), (format!("{}.v", p.name), v)])
    }

    /// Takes a saved state over; `find` gives the tensor of a name that [`Optimizer::state`] gave.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape or dtype, the error of `find`, or what a GPU says.
    pub fn restore<E: From<Error>>(
        &mut self,
        params: &Params,
        steps: u64,
        mut find: impl FnMut(&str) -> std::result::Result<Option<Tensor>, E>,
    ) -> std::result::Result<(), E> {
        for (p, state) in params.iter().zip(&mut self.states) {
            for (moment, suffix) in state.moments.iter_mut().zip(["m", "v"]) {
                let name = format!("{}.{suffix}", p.name);
                let mismatch = |found: String| Error::Mismatch {
                    what: format!("optimiser state {name}"),
                    wanted: format!("f32 {:?}", moment.shape()),
                    found,
                };
                let Some(t) = find(&name)? else { return Err(mismatch("nothing".into()).into()) };
                if t.shape() != moment.shape() || t.dtype() != DType::F32 {
                    return Err(mismatch(format!("{} {:?}", t.dtype(), t.shape())).into());
                }
                *moment = t.to_device(moment.device()).map_err(Error::from)?;
            }
        }
        self.steps = steps;
        Ok(())
    }

    /// The root of the sum of all squared gradients, where they are, and what clipping makes of it.
    ///
    /// # Errors
    /// What a GPU says.
    pub fn norm(&self, grads: &Grads) -> Result<GradNorm> {
        Ok(adamw::norm(&grads.iter().collect::<Vec<_>>(), self.settings.clip)?)
    }

    /// One step at learning rate `lr`: clips by the global norm (of [`Optimizer::norm`]), then updates every parameter. Nothing
    /// changes where the norm is not finite, which its value tells; on a GPU nothing is waited for.
    ///
    /// # Errors
    /// Parameters that are not those the optimiser was made for, or not where they were.
    pub fn step(&mut self, params: &mut Params, grads: &Grads, norm: &GradNorm, lr: f32) -> Result<()> {
        if params.len() != self.states.len() {
            return Err(Error::Mismatch {
                what: "parameters".into(),
                wanted: self.states.len().to_string(),
                found: params.len().to_string(),
            });
        }
        let Settings { beta1, beta2, eps, weight_decay, .. } = self.settings;
        let all = params.iter_mut().zip(grads.iter()).zip(&mut self.states);
        let mut weights: Vec<Weight> = all
            .map(|((p, gradient), State { master, moments: [m, v] })| Weight {
                value: &mut p.value,
                master: master.as_mut(),
                gradient,
                moments: [m, v],
                decays: p.decays,
            })
            .collect();
        adamw::update(&mut weights, &AdamW { lr, beta1, beta2, eps, weight_decay }, self.steps + 1, norm)?;
        self.steps += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use simulator::{devices, gpus};
    use tensor::Device;

    use super::*;

    const SETTINGS: Settings = Settings { beta1: 0.9, beta2: 0.99, eps: 1e-6, weight_decay: 0.1, clip: 1.0 };

    /// Numbers between -1 and 1, other ones for each seed.
    fn some(n: usize, seed: u64) -> Vec<f32> {
        (0..n as u64).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0).collect()
    }

    fn params(device: &Device) -> Params {
        let mut params = Params::default();
        for (name, sizes, seed) in [("w", &[5usize, 7][..], 1), ("b", &[5], 2), ("e", &[40, 3], 3)] {
            let x = Tensor::new(sizes, some(sizes.iter().product(), seed)).unwrap();
            params.add(name, x.to_device(device).unwrap());
        }
        params
    }

    fn gradients(params: &Params, seed: u64) -> Grads {
        let mut grads = Grads::zeros(params).unwrap();
        for (i, p) in params.iter().enumerate() {
            let x = Tensor::new(p.value.shape(), some(p.value.elements(), seed + i as u64)).unwrap();
            *grads.get_mut(crate::ParamId(i)) = x.to_device(p.value.device()).unwrap();
        }
        grads
    }

    fn numbers(x: &Tensor) -> Vec<f32> {
        x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap().values().unwrap().to_vec()
    }

    /// Some steps on, and what is left then: masters and the state by name.
    fn run(params: &mut Params, optimizer: &mut Optimizer, steps: std::ops::Range<u64>) -> HashMap<String, Vec<f32>> {
        for step in steps {
            let grads = gradients(params, 10 * step);
            let norm = optimizer.norm(&grads).unwrap();
            optimizer.step(params, &grads, &norm, 0.01).unwrap();
        }
        let names = params.iter().map(|p| p.name.clone());
        let masters = names.zip(optimizer.masters(params)).map(|(name, x)| (name, numbers(x)));
        masters.chain(optimizer.state(params).map(|(name, x)| (name, numbers(x)))).collect()
    }

    fn close(a: &HashMap<String, Vec<f32>>, b: &HashMap<String, Vec<f32>>) -> bool {
        let near = |(x, y): (&f32, &f32)| (x - y).abs() <= 1e-5;
        a.len() == b.len() && a.iter().all(|(name, x)| x.iter().zip(&b[name]).all(near))
    }

    #[test]
    fn a_gpu_with_narrow_weights_keeps_the_same_exact_ones() {
        let mut near = params(&Device::Cpu);
        let mut optimizer = Optimizer::new(&mut near, SETTINGS, DType::F32).unwrap();
        let wanted = run(&mut near, &mut optimizer, 0..4);
        for device in gpus() {
            let mut there = params(device);
            let mut optimizer = Optimizer::new(&mut there, SETTINGS, DType::BF16).unwrap();
            let got = run(&mut there, &mut optimizer, 0..4);
            assert!(close(&got, &wanted), "{device}");
            let dtypes: Vec<_> = there.iter().map(|p| p.value.dtype()).collect();
            assert_eq!(dtypes, [DType::BF16, DType::F32, DType::BF16]);
            for (p, master) in there.iter().zip(optimizer.masters(&there)) {
                assert_eq!((master.dtype(), master.device()), (DType::F32, device));
                let rounded = elementwise::convert(master, p.value.dtype()).unwrap();
                assert_eq!(numbers(&p.value), numbers(&rounded));
            }
        }
    }

    /// What was saved on one device goes on on any other, to the bit where it is the same one.
    #[test]
    fn a_saved_state_goes_on_anywhere() {
        for from in devices().take(3) {
            let mut before = params(from);
            let mut optimizer = Optimizer::new(&mut before, SETTINGS, DType::BF16).unwrap();
            run(&mut before, &mut optimizer, 0..3);
            let near = |x: &Tensor| x.to_device(&Device::Cpu).unwrap();
            let saved: HashMap<_, _> = optimizer.state(&before).map(|(name, x)| (name, near(x))).collect();
            let weights: Vec<Tensor> = optimizer.masters(&before).map(near).collect();
            let wanted = run(&mut before, &mut optimizer, 3..5);
            for to in devices().take(3) {
                let mut after = params(to);
                for (p, weight) in after.iter_mut().zip(&weights) {
                    p.value = weight.to_device(to).unwrap();
                }
                let mut optimizer = Optimizer::new(&mut after, SETTINGS, DType::BF16).unwrap();
                optimizer.restore(&after, 3, |name| Ok::<_, Error>(saved.get(name).cloned())).unwrap();
                assert!(optimizer.state(&after).all(|(_, x)| x.device() == to));
                let got = run(&mut after, &mut optimizer, 3..5);
                assert_eq!(optimizer.steps(), 5);
                assert!(if from == to { got == wanted } else { close(&got, &wanted) }, "{from} to {to}");
            }
            let nothing = optimizer.restore(&before, 3, |_| Ok::<_, Error>(None)).unwrap_err().to_string();
            assert!(nothing.contains("w.m"), "{nothing}");
        }
    }

    #[test]
    fn an_infinite_gradient_leaves_everything_as_it_was() {
        for device in devices() {
            let mut params = params(device);
            let mut optimizer = Optimizer::new(&mut params, SETTINGS, DType::F32).unwrap();
            let before = run(&mut params, &mut optimizer, 0..1);
            let mut grads = gradients(&params, 5);
            let bad = Tensor::new(&[5], vec![0.0, 1.0, f32::INFINITY, 0.0, 0.0]).unwrap().to_device(device).unwrap();
            *grads.get_mut(crate::ParamId(1)) = bad;
            let norm = optimizer.norm(&grads).unwrap();
            optimizer.step(&mut params, &grads, &norm, 0.01).unwrap();
            assert!(!norm.value().unwrap().is_finite());
            assert_eq!(run(&mut params, &mut optimizer, 0..0), before);
        }
    }
}
