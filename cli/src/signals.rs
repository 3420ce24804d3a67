//! SIGINT and SIGTERM: the first asks for an orderly end, the second ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

/// Whether an end was asked for, and by which signal.
#[derive(Clone)]
pub struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Starts to listen.
    pub fn listen() -> anyhow::Result<Self> {
        let which = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM] {
            let seen = Arc::new(AtomicBool::new(false));
            // Registered first, so that it looks before the flag of the same signal is set.
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, seen.clone())?;
            signal_hook::flag::register(signal, seen)?;
            signal_hook::flag::register_usize(signal, which.clone(), usize::try_from(signal)?)?;
        }
        Ok(Self(which))
    }

    /// The exit code that the signal wants, once there was one: 130 or 143.
    pub fn exit_code(&self) -> Option<u8> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(128 + u8::try_from(signal).unwrap_or(0)),
        }
    }
}
