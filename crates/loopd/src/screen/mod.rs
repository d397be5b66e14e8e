//! What a person sees: text on a terminal, in colour where that is wanted, and never a control sequence that came from a
//! model or a tool.

mod progress;
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
    /// A line can be taken back.
    renews: bool,
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
        let renews = io::stdout().is_terminal() && !is_dumb();
        Screen { out: Box::new(io::stdout()), colour: Self::wants_colour(), renews }
    }

    /// Only on terminals that can, and only for those who have not said no.
    pub fn wants_colour() -> bool {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        io::stdout().is_terminal() && !refused && !is_dumb()
    }

    #[cfg(test)]
    pub fn to(out: Box<dyn Write + Send>) -> Self {
        Screen { out, colour: false, renews: false }
    }

    /// As a terminal without colours.
    #[cfg(test)]
    pub fn renewing(self) -> Self {
        Screen { renews: true, ..self }
    }

    pub fn renews(&self) -> bool {
        self.renews
    }

    /// Takes the line back in which the cursor stands.
    pub fn renew(&mut self) -> io::Result<()> {
        self.out.write_all(b"\r\x1b[K")
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

fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}
