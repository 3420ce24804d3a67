//! Exit codes, and the one line that says what went wrong.

use std::io::ErrorKind;

/// Bad arguments, configuration or data.
pub const USAGE: u8 = 2;
/// Not enough memory.
pub const MEMORY: u8 = 3;
/// A disk that is full, or a file that may not be written.
pub const DISK: u8 = 4;
/// `doctor`: no GPU, or none that can be used.
pub const NO_GPU: u8 = 6;
/// Another process works in the same output folder.
pub const LOCKED: u8 = 5;

/// An error that brings its own exit code.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub message: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The exit code of an error: its own, [`MEMORY`] where a GPU's is full, [`DISK`] where the system refused a write, else [`USAGE`].
pub fn code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.code;
        }
        // In the driver's own word, as whose error this is depends on what was computed.
        if cause.to_string().contains("CUDA_ERROR_OUT_OF_MEMORY") {
            return MEMORY;
        }
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let full =
            [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge, ErrorKind::ReadOnlyFilesystem];
        if io.is_some_and(|kind| full.contains(&kind)) {
            return DISK;
        }
        if let Some(tensor::Error::Io { action, .. }) = cause.downcast_ref::<tensor::Error>()
            && !["read", "open", "map", "inspect"].contains(action)
        {
            return DISK;
        }
    }
    USAGE
}

/// The whole chain on one line, with control characters made visible.
pub fn line(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // A cause that its parent already quotes is not said twice.
        if !parts.iter().any(|p| p.contains(&text)) {
            parts.push(text);
        }
    }
    visible(&parts.join(": "))
}

/// Text from files, made safe for a terminal: control characters are shown as escapes.
pub fn visible(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_the_cause_and_lines_stay_lines() {
        let full = anyhow::Error::new(std::io::Error::from(ErrorKind::StorageFull)).context("a\nb");
        assert_eq!(code(&full), DISK);
        assert!(line(&full).starts_with("a\\nb: "));
        assert_eq!(code(&anyhow::anyhow!("x")), USAGE);
        let own = anyhow::Error::new(Failure { code: MEMORY, message: "m".into() }).context("c");
        assert_eq!((code(&own), line(&own).as_str()), (MEMORY, "c: m"));
    }
}
