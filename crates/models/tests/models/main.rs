//! The models room from outside: requests through the registry, over HTTP, to a fake provider that speaks the real wires.

mod anthropic;
mod builtin;
mod errors;
mod fake;
mod openai;
mod registry;
mod setup;
mod streams;
