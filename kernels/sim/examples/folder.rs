//! Prints the folder of the simulated driver, built if it is not there, for the `LD_LIBRARY_PATH` of other programs.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let (mut out, mut log) = (std::io::stdout(), std::io::stderr());
    let done = match simulator::folder() {
        Ok(Some(folder)) => writeln!(out, "{}", folder.display()),
        Ok(None) => writeln!(log, "no g++ for simulated GPUs").and(Err(std::io::ErrorKind::NotFound.into())),
        Err(why) => writeln!(log, "simulated GPUs: {why}").and(Err(std::io::ErrorKind::Other.into())),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
