//! The launcher's program. With no argument, and with `confine`, standard input is the control socket, and that is all it is given.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => loopd_jail::launcher::main(),
        Some("confine") => loopd_jail::confine::main(),
        Some("probe") => loopd_jail::probe::main(),
        Some(other) => {
            eprintln!("loopd-jail: unknown argument `{other}`; accepted: none, `confine`, or `probe`");
            ExitCode::from(2)
        }
    }
}
