//! How much memory there is, and whether a plan fits.

use bloom::Plan;

use crate::failure::{self, Failure};

/// Bytes that this process may still take: the system's estimate, or the rest of a limit set on the process or its
/// control group, whichever is less. `None` where the system does not say.
pub fn available() -> Option<u64> {
    let system = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    // What the group counts as taken holds cached files that the system gives back when asked.
    let cached = std::fs::read_to_string("/sys/fs/cgroup/memory.stat")
        .ok()
        .and_then(|text| text.lines().find_map(|l| l.strip_prefix("inactive_file "))?.trim().parse::<u64>().ok());
    let group = number("/sys/fs/cgroup/memory.max").map(|max| {
        let taken = number("/sys/fs/cgroup/memory.current").unwrap_or(0);
        max.saturating_sub(taken.saturating_sub(cached.unwrap_or(0)))
    });
    let own = std::fs::read_to_string("/proc/self/limits").ok().and_then(|text| {
        let line = text.lines().find_map(|l| l.strip_prefix("Max address space"))?;
        let limit = line.split_whitespace().next()?.parse::<u64>().ok()?;
        // The limit counts what is reserved, not what is used: stacks and the allocator's arenas among it.
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let taken = status
            .lines()
            .find_map(|l| l.strip_prefix("VmSize:"))?
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse::<u64>()
            .ok()?;
        Some(limit.saturating_sub(taken.saturating_mul(1024)))
    });
    [system, group, own].into_iter().flatten().min()
}

/// The plan's parts and sum, and what is there, on one line.
pub fn describe(plan: &Plan, available: Option<u64>) -> String {
    let parts: Vec<String> = plan.parts.iter().map(|(name, bytes)| format!("{name} {}", size(*bytes))).collect();
    let there = available.map_or(String::new(), |a| format!(" of {} available", size(a)));
    format!("{} = {}{there}", parts.join(" + "), size(plan.total()))
}

/// An error with the exit code for memory if the plan needs more than there is.
pub fn must_fit(plan: &Plan, available: Option<u64>, advice: &str) -> anyhow::Result<()> {
    match available {
        Some(there) if plan.total() > there => {
            let message =
                format!("not enough memory: {} needed, {} available; try {advice}", size(plan.total()), size(there));
            Err(Failure { code: failure::MEMORY, message }.into())
        }
        _ => Ok(()),
    }
}

/// Bytes in the largest binary unit that leaves at least one.
pub fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes.log2() {
        l if l >= 30.0 => format!("{:.1} GiB", bytes / 2f64.powi(30)),
        l if l >= 20.0 => format!("{:.1} MiB", bytes / 2f64.powi(20)),
        l if l >= 10.0 => format!("{:.1} KiB", bytes / 2f64.powi(10)),
        _ => format!("{bytes} B"),
    }
}

/// A number with commas.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_numbers_read_well() {
        assert_eq!([size(512), size(2048), size(3 << 30)], ["512 B", "2.0 KiB", "3.0 GiB"]);
        assert_eq!([thousands(7), thousands(1234), thousands(559_214_592)], ["7", "1,234", "559,214,592"]);
    }
}
