//! Capture on a simulated GPU: what a graph does again, and what a driver refuses to capture.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // how a test fails

use tensor::{DType, Device, Error, Gpu, Tensor};

/// With GPUs of its own: whatever is asked of one while it captures is captured.
fn each(test: impl Fn(&Device, &Gpu)) {
    for i in 0..simulator::gpus().len() {
        let gpu = Gpu::open(i).unwrap();
        test(&Device::Cuda(gpu.clone()), &gpu);
    }
}

fn three(device: &Device) -> Tensor {
    Tensor::new(&[3], vec![1.0f32, 2.0, 3.0]).unwrap().to_device(device).unwrap()
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.to_device(&Device::Cpu).unwrap().values::<f32>().unwrap().to_vec()
}

/// A tensor of its own with the same numbers.
fn copy(gpu: &Gpu, x: &Tensor) -> Result<Tensor, Error> {
    let mut copy = x.clone();
    copy.gpu_pointer_mut(gpu)?;
    Ok(copy)
}

#[test]
fn a_graph_does_the_same_again_with_what_is_there_now() {
    each(|device, gpu| {
        let mut x = three(device);
        let (y, graph) = gpu
            .capture(|| {
                let dropped = Tensor::zeros_on(device, &[1000], DType::F32)?;
                let y = copy(gpu, &x)?;
                drop(dropped);
                Ok::<_, Error>(y)
            })
            .unwrap();
        assert_eq!(numbers(&y), [1.0, 2.0, 3.0]);
        for i in 4..7 {
            let new = [i as f32, 0.5, -1.0];
            x.write(&new).unwrap();
            assert_ne!(numbers(&y), new);
            graph.launch().unwrap();
            assert_eq!(numbers(&y), new);
        }
        drop(graph);
        assert_eq!(numbers(&y), [6.0, 0.5, -1.0], "what a graph has left outlives it");
    });
}

#[test]
fn a_graph_is_not_launched_without_the_memory_that_it_uses() {
    each(|device, gpu| {
        let mut x = three(device);
        let (y, first) = gpu.capture(|| copy(gpu, &x)).unwrap();
        let (z, second) = gpu.capture(|| copy(gpu, &y)).unwrap();
        second.launch().unwrap();
        // It goes elsewhere, as a clone keeps its memory.
        let clone = x.clone();
        x.write(&[4.0f32, 5.0, 6.0]).unwrap();
        first.launch().unwrap();
        assert_eq!(numbers(&y), [1.0, 2.0, 3.0]);
        drop(clone);
        assert!(first.launch().unwrap_err().to_string().contains("is gone"));
        second.launch().unwrap();
        drop(y);
        assert!(second.launch().unwrap_err().to_string().contains("is gone"));
        assert_eq!(numbers(&z), [1.0, 2.0, 3.0]);
    });
}

#[test]
fn who_gives_up_says_why() {
    each(|_, gpu| {
        assert!(gpu.captures() && gpu.refused().is_none());
        gpu.give_up_captures("it was refused".into());
        assert!(!gpu.captures());
        assert_eq!(gpu.refused(), Some("it was refused"));
    });
}

/// It is refused, and the GPU goes on as if nothing had been asked.
fn refuses(what: &str, work: impl Fn(&Device, &Gpu) -> Result<(), Error>) {
    each(|device, gpu| {
        assert!(gpu.capture(|| work(device, gpu)).is_err(), "{what}");
        assert_eq!(numbers(&three(device)), [1.0, 2.0, 3.0], "after: {what}");
        assert!(gpu.capture(|| Tensor::zeros_on(device, &[1], DType::F32)).is_ok(), "after: {what}");
    });
}

#[test]
fn what_cannot_be_put_off_is_not_captured() {
    refuses("a wait", |_, gpu| gpu.synchronize());
    // A driver may put it down, and read again what is no longer there.
    if simulator::graphs_launched().is_some() {
        refuses("a copy to the GPU, which cudarc is asked for", |_, gpu| {
            let to = gpu.stream().clone_htod(&[1.0f32]);
            to.map(drop).map_err(|e| Error::Gpu { action: "copy to GPU", what: String::new(), reason: e.to_string() })
        });
    }
    refuses("a copy to the GPU", |device, _| Tensor::new(&[1], vec![1.0f32])?.to_device(device).map(drop));
    refuses("a capture within", |_, gpu| gpu.capture(|| Ok(())).map(drop));
    each(|device, gpu| {
        let x = three(device);
        assert!(gpu.capture(|| x.to_device(&Device::Cpu)).is_err(), "a copy from the GPU");
        let mut other = Some(three(device));
        let dropped = gpu.capture(|| {
            drop(other.take());
            Ok::<_, Error>(())
        });
        assert!(dropped.is_err(), "memory is freed that the graph does not have");
        // Nor is an error hidden that only the driver sees.
        let ignored = gpu.capture(|| {
            let _ = gpu.synchronize();
            Ok::<_, Error>(())
        });
        assert!(ignored.is_err());
        assert_eq!(numbers(&x), [1.0, 2.0, 3.0]);
    });
}
