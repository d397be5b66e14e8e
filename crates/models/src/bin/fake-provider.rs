//! `fake-provider [--port N] [--script FILE]`: the fake provider of the tests as a program, for benchmarks and clients in
//! other languages. Prints its address, then serves until it is ended.

use loopd_models::testing::{FakeProvider, Options, Script};
use std::io::Write;
use std::process::ExitCode;

const USAGE: &str = "usage: fake-provider [--port NUMBER] [--script FILE]";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("fake-provider: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let options = read_arguments(std::env::args().skip(1))?;
    let provider = FakeProvider::start_with(options).await.map_err(|fault| format!("cannot listen: {fault}"))?;
    println!("http://{}", provider.address());
    std::io::stdout().flush().map_err(|fault| format!("cannot print the address: {fault}"))?;
    provider.wait().await;
    Ok(())
}

fn read_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { forget: true, ..Options::default() };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("`{name}` has no value; {USAGE}"))?;
        match name.as_str() {
            "--port" => {
                options.port = value.parse().map_err(|_| format!("`{value}` is no port; accepted: 0 to 65535"))?
            }
            "--script" => {
                let text =
                    std::fs::read_to_string(&value).map_err(|fault| format!("cannot read `{value}`: {fault}"))?;
                options.script = Some(Script::parse(&text).map_err(|fault| format!("`{value}`: {fault}"))?);
            }
            _ => return Err(format!("`{name}` is not known; {USAGE}")),
        }
    }
    Ok(options)
}
