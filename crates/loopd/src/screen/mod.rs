//! What a person sees: text on a terminal, in colour where that is wanted, and never a control sequence that came from a
//! model or a tool.

mod steps;
mod summary;
mod text;

pub use steps::StepsView;
pub use summary::summary_line;
pub use text::one_line;

use std::io::{self, IsTerminal, Write};

/// Standard output with or without colour.
pub struct Screen {
    out: Box<dyn Write + Send>,
    colour: bool,
}

/// How a piece of text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    Plain,
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Screen {
    pub fn stdout() -> Self {
        Screen { out: Box::new(io::stdout()), colour: Self::wants_colour() }
    }

    /// Only on terminals that can, and only for those who have not said no.
    pub fn wants_colour() -> bool {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        io::stdout().is_terminal() && !refused && !dumb
    }

    #[cfg(test)]
    pub fn to(out: Box<dyn Write + Send>) -> Self {
        Screen { out, colour: false }
    }

    pub fn put(&mut self, ink: Ink, text: &str) -> io::Result<()> {
        let code = match ink {
            Ink::Plain => "",
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Red => "31",
            Ink::Green => "32",
            Ink::Yellow => "33",
            Ink::Cyan => "36",
        };
        match self.colour && !code.is_empty() {
            true => write!(self.out, "\x1b[{code}m{text}\x1b[0m"),
            false => self.out.write_all(text.as_bytes()),
        }
    }

    pub fn line(&mut self, ink: Ink, text: &str) -> io::Result<()> {
        self.put(ink, text)?;
        self.out.write_all(b"\n")
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
