//! The bytes with which host and guest begin afresh, and their finder.

use std::fmt;

pub const TOKEN_BYTES: usize = 32;
pub const NONCE_BYTES: usize = 16;
/// Begins so that no frame of which the beginning was cut off and these bytes follow can be a frame of the link that means anything:
/// neither a kind, a length nor a credit is made of them, and no JSON.
const MAGIC: [u8; 16] = *b"\xff\xff\xff\xff\xff\xff\xff\xffloopd\x00\x01\xfe";
pub(super) const RESET_BYTES: usize = MAGIC.len() + TOKEN_BYTES + NONCE_BYTES;

/// Only hosts of this machine know it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token(pub [u8; TOKEN_BYTES]);

impl Token {
    /// Of a machine that no session has.
    pub const UNBOUND: Token = Token([0; TOKEN_BYTES]);

    pub fn from_hex(text: &str) -> Option<Token> {
        let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        match digits.len() == 2 * TOKEN_BYTES {
            true => bytes.try_into().ok().map(Token),
            false => None,
        }
    }

    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Tells the answer to one reset from the answer to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub [u8; NONCE_BYTES]);

pub(super) fn encode(token: &Token, nonce: &Nonce) -> [u8; RESET_BYTES] {
    let mut bytes = [0; RESET_BYTES];
    bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
    bytes[MAGIC.len()..][..TOKEN_BYTES].copy_from_slice(&token.0);
    bytes[MAGIC.len() + TOKEN_BYTES..].copy_from_slice(&nonce.0);
    bytes
}

/// Finds a reset in a stream of bytes, however it is cut, and wherever it begins (Knuth, Morris, Pratt).
pub(super) struct Finder {
    pattern: Vec<u8>,
    /// How much of the pattern stands at the end of its first so many bytes, and is not those.
    fallback: Vec<usize>,
    matched: usize,
    wanted: Wanted,
    /// What has come of the nonce behind a whole pattern. The search goes on in it: a reset may be cut off there, and be followed by one.
    nonce: Option<Vec<u8>>,
}

#[derive(Clone, Copy)]
enum Wanted {
    /// Any nonce behind the pattern.
    Any,
    /// The pattern has this one in it.
    This(Nonce),
}

impl Finder {
    /// Of what a host says.
    pub(super) fn of_any(token: &Token) -> Self {
        let reset = encode(token, &Nonce([0; NONCE_BYTES]));
        Finder::new(reset[..RESET_BYTES - NONCE_BYTES].to_vec(), Wanted::Any)
    }

    /// Of the answer to a host.
    pub(super) fn of_this(token: &Token, nonce: Nonce) -> Self {
        Finder::new(encode(token, &nonce).to_vec(), Wanted::This(nonce))
    }

    fn new(pattern: Vec<u8>, wanted: Wanted) -> Self {
        let mut fallback = vec![0; pattern.len() + 1];
        let mut matched = 0;
        for at in 1..pattern.len() {
            while matched > 0 && pattern[at] != pattern[matched] {
                matched = fallback[matched];
            }
            matched += usize::from(pattern[at] == pattern[matched]);
            fallback[at + 1] = matched;
        }
        Finder { pattern, fallback, matched: 0, wanted, nonce: None }
    }

    /// Where the first reset in here ends, which may have begun earlier. To be asked again with what follows.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Option<(usize, Nonce)> {
        let mut at = 0;
        loop {
            if self.matched == 0 && self.nonce.is_none() {
                at += bytes[at..].iter().position(|byte| *byte == self.pattern[0])?;
            }
            let byte = *bytes.get(at)?;
            at += 1;
            let is_whole = self.step(byte);
            if let Some(nonce) = &mut self.nonce {
                nonce.push(byte);
                if let Ok(nonce) = <[u8; NONCE_BYTES]>::try_from(nonce.as_slice()) {
                    self.nonce = None;
                    return Some((at, Nonce(nonce)));
                }
            }
            match (is_whole, self.wanted) {
                (true, Wanted::Any) => self.nonce = Some(Vec::with_capacity(NONCE_BYTES)),
                (true, Wanted::This(nonce)) => return Some((at, nonce)),
                (false, _) => {}
            }
        }
    }

    /// One byte more; whether it completes the pattern.
    fn step(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.pattern[self.matched] != byte {
            self.matched = self.fallback[self.matched];
        }
        self.matched += usize::from(self.pattern[self.matched] == byte);
        let is_whole = self.matched == self.pattern.len();
        if is_whole {
            self.matched = self.fallback[self.matched];
        }
        is_whole
    }
}
