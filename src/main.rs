//! The `enotun` binary: arguments in, exit status out.

use std::process::ExitCode;

fn main() -> ExitCode {
    enotun::cli::main()
}
