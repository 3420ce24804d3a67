//! Where to compute: the processor, or a GPU if there is one.

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tensor::{Device, Gpu, UseOf};

use crate::memory;
use crate::report::say;

/// The major compute capability that the kernels are compiled for.
pub const OLDEST: i32 = 8;
/// The CUDA version of the oldest driver that takes their PTX.
const OLDEST_DRIVER: (i32, i32) = (12, 0);

/// Where to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceChoice {
    /// On the processor
    #[default]
    Cpu,
    /// On the first GPU; `CUDA_VISIBLE_DEVICES` says which that is
    Cuda,
    /// On the first GPU if it can be used, else on the processor
    Auto,
}

impl DeviceChoice {
    /// Opens what was chosen.
    ///
    /// # Errors
    /// No CUDA driver or no GPU where one was asked for, or what the driver says.
    pub fn open(self) -> anyhow::Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto if Gpu::count() == 0 => Ok(Device::Cpu),
            Self::Cuda => first().context("--device"),
            Self::Auto => first().or_else(|why| {
                say(&format!("{why:#}; computing on the processor"));
                Ok(Device::Cpu)
            }),
        }
    }
}

/// The first GPU, if the kernels can run there.
fn first() -> anyhow::Result<Device> {
    if let Some(old) = old_driver() {
        bail!("{old}");
    }
    let gpu = Gpu::open_to_use(0, use_of())?;
    let (major, minor) = gpu.compute_capability()?;
    if major < OLDEST {
        bail!("GPU 0 has compute capability {major}.{minor}: wanted {OLDEST}.0 or newer");
    }
    Ok(Device::Cuda(gpu))
}

/// What is wrong with the driver, if it is too old.
pub fn old_driver() -> Option<String> {
    let (major, minor) = Gpu::driver().filter(|found| found < &OLDEST_DRIVER)?;
    let (wanted, rest) = OLDEST_DRIVER;
    Some(format!("the driver is for CUDA {major}.{minor}: wanted {wanted}.{rest} or newer"))
}

/// What of a GPU is used, as the environment says: `ECOM_GRAPHS=0` launches each kernel by itself, `ECOM_CUBLASLT=1` multiplies
/// matrices by cuBLASLt where it is installed, `ECOM_HOPPER=1` by kernels for compute capability 9.0 where that is the GPU's.
pub fn use_of() -> UseOf {
    let is = |name: &str, wanted: &str| std::env::var_os(name).is_some_and(|value| value == wanted);
    UseOf { graphs: !is("ECOM_GRAPHS", "0"), cublaslt: is("ECOM_CUBLASLT", "1"), hopper: is("ECOM_HOPPER", "1") }
}

/// Says so if decoding went on without graphs, as one was refused.
pub fn tell_of_graphs(device: &Device) {
    if let Device::Cuda(gpu) = device
        && let Some(why) = gpu.refused()
    {
        say(&format!("warning: each kernel was launched by itself, as a CUDA graph of them was refused: {why}"));
    }
}

/// Bytes that this process may still take where it computes; `None` where the system does not say.
pub fn available(device: &Device) -> Option<u64> {
    match device {
        Device::Cpu => memory::available(),
        Device::Cuda(gpu) => gpu.memory().ok().map(|(free, _)| free as u64),
    }
}

/// Whose memory a plan for this device is about.
pub fn memory_of(device: &Device) -> bloom::Memory {
    match device {
        Device::Cpu => bloom::Memory::Main,
        Device::Cuda(_) => bloom::Memory::Gpu,
    }
}

/// What to call it: `cpu`, or the GPU with its name.
pub fn describe(device: &Device) -> String {
    match device {
        Device::Cpu => device.to_string(),
        Device::Cuda(gpu) => format!("{device} ({})", gpu.name().unwrap_or_else(|e| e.to_string())),
    }
}
