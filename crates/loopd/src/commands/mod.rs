//! One file per command. Each talks to the server as any client does, unless it says otherwise.

pub mod audit;
pub mod doctor;
pub mod image;
pub mod images;
pub mod invoke;
pub mod keys;
pub mod redact;
pub mod replay;
pub mod serve;
pub mod sessions;
pub mod trace;
pub mod verify;
